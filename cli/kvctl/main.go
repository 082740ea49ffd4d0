// Kvctl is KeyVal in one binary: client, operator's tool, node (serve), local
// cluster (dev) and simulator (sim).
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"keyval/cli"
)

func main() {
	signals := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup means it
		signals = append(signals, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), signals...)
	context.AfterFunc(ctx, stop) // a second signal ends at once
	os.Exit(cli.Run(ctx, *cli.NewShell(), os.Args))
}
