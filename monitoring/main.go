// Command monitoring writes what Prometheus and Grafana need to watch a cluster of KeyVal:
// dashboard.json and alerts.yaml, in the directory that it is run in.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"gopkg.in/yaml.v3"
)

func main() {
	if err := write(); err != nil {
		fmt.Fprintln(os.Stderr, "monitoring:", err)
		os.Exit(1)
	}
}

func write() error {
	board, err := board()
	if err != nil {
		return err
	}
	drawn, err := json.MarshalIndent(board, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile("dashboard.json", append(drawn, '\n'), 0o644); err != nil {
		return err
	}
	file, err := os.Create("alerts.yaml")
	if err != nil {
		return err
	}
	defer file.Close()
	fmt.Fprintf(file, "# Made by go run . in this directory; rules.go is the source.\n")
	out := yaml.NewEncoder(file)
	out.SetIndent(2)
	return out.Encode(groups())
}
