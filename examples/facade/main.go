// Facade is a program that uses a KeyVal cluster through blocking calls: it writes,
// reads, looks back in history, scans and deletes.
//
//	go run ./examples/facade --endpoints 127.0.0.1:7001,127.0.0.1:7002
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"keyval/actors/client"
)

func main() {
	endpoints := flag.String("endpoints", "127.0.0.1:7001,127.0.0.1:7002,127.0.0.1:7003", "nodes of the cluster, as `HOST:PORT,...`")
	timeout := flag.Duration("timeout", 10*time.Second, "give up after `DURATION`")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	err := run(ctx, strings.Split(*endpoints, ","))
	cancel()
	if err != nil {
		fmt.Fprintln(os.Stderr, "facade:", err)
		var e *client.Error
		if errors.As(err, &e) && e.Hint != "" {
			fmt.Fprintln(os.Stderr, "  next:", e.Hint)
		}
		os.Exit(1)
	}
}

func run(ctx context.Context, endpoints []string) error {
	// One client serves any number of goroutines, for as long as the program runs.
	c, err := client.Connect(ctx, client.Options{Endpoints: endpoints})
	if err != nil {
		return err
	}
	defer c.Close()

	for _, fruit := range []string{"apple=3", "banana=12", "cherry=400"} {
		name, number, _ := strings.Cut(fruit, "=")
		put, err := c.Put(ctx, []byte("fruit/"+name), []byte(number))
		if errors.Is(err, client.ErrOutcomeUnknown) {
			return fmt.Errorf("it may or may not have happened; read the key before trying again: %w", err)
		}
		if err != nil {
			return err
		}
		fmt.Printf("put %s at revision %d\n", put.Key, put.Revision)
	}

	before, err := c.Get(ctx, []byte("fruit/banana"))
	if err != nil {
		return err
	}
	if _, err := c.Put(ctx, []byte("fruit/banana"), []byte("11")); err != nil {
		return err
	}
	now, err := c.Get(ctx, []byte("fruit/banana"))
	if err != nil {
		return err
	}
	// History is kept: what was there can be read as of then.
	then, err := c.Get(ctx, []byte("fruit/banana"), client.AtRevision(before.Revision))
	if err != nil {
		return err
	}
	fmt.Printf("banana: %s now, %s at revision %d\n", now.Value, then.Value, then.Revision)

	if _, err := c.Delete(ctx, []byte("fruit/apple")); err != nil {
		return err
	}
	_, err = c.Get(ctx, []byte("fruit/apple"))
	if !errors.Is(err, client.ErrNotFound) {
		return fmt.Errorf("the apple is still there: %w", err)
	}
	fmt.Println("apple: deleted")

	// Several operations in one command: all of them, or none.
	move, err := c.Transact(ctx, client.Transaction{
		If:   []client.Condition{client.RevisionIs(now.Key, now.Revision)},
		Then: []client.Operation{client.DeleteOperation(now.Key), client.PutOperation([]byte("fruit/plantain"), now.Value)},
	})
	if err != nil {
		return err
	}
	fmt.Printf("the banana is a plantain since revision %d\n", move.Revision)

	// A scan is read at one revision, whatever others write meanwhile. "0" is the
	// character behind "/": the range is all keys that begin with fruit/.
	for item, err := range c.Scan(ctx, []byte("fruit/"), []byte("fruit0"), client.ScanOptions{}) {
		if err != nil {
			return err
		}
		fmt.Printf("%s = %s\n", item.Key, item.Value)
	}
	return nil
}
