package client_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"keyval/actors/client"
	"keyval/actors/seam/production"
	"keyval/actors/transport/grpc"
	"keyval/messages"
)

func ExampleConnect() {
	ctx := context.Background()
	c, err := client.Connect(ctx, client.Options{Endpoints: []string{"127.0.0.1:7001", "127.0.0.1:7002", "127.0.0.1:7003"}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	if _, err := c.Put(ctx, []byte("color"), []byte("red")); err != nil {
		fmt.Println(err)
		return
	}
	got, err := c.Get(ctx, []byte("color"))
	fmt.Println(string(got.Value), got.Revision, err)
}

// Options that cannot work are refused before anything is dialled.
func ExampleConnect_invalid() {
	_, err := client.Connect(context.Background(), client.Options{Endpoints: []string{"localhost"}})
	var e *messages.Error
	if errors.As(err, &e) {
		fmt.Println(e.Code)
		fmt.Println(e.Message)
		fmt.Println(e.Hint)
	}
	// Output:
	// INVALID
	// endpoint "localhost" is no HOST:PORT
	// write HOST:PORT, such as 127.0.0.1:7001
}

// Where no node is reached, the error says what is wrong with each endpoint.
func ExampleConnect_unreachable() {
	_, err := client.Connect(context.Background(), client.Options{Endpoints: []string{"127.0.0.1:1"}, Timeout: 100 * time.Millisecond})
	fmt.Println(messages.CodeOf(err), errors.Is(err, context.DeadlineExceeded))
	fmt.Println(err)
	// Output:
	// UNREACHABLE true
	// the endpoint does not serve: nothing listens at 127.0.0.1:1 (endpoint 127.0.0.1:1)
}

// After OUTCOME_UNKNOWN the key says whether the write happened.
func ExampleClient_Put() {
	var c *client.Client // from Connect
	ctx := context.Background()
	_, err := c.Put(ctx, []byte("order-17"), []byte("paid"))
	switch {
	case err == nil:
	case errors.Is(err, client.ErrOutcomeUnknown):
		got, err := c.Get(ctx, []byte("order-17"))
		fmt.Println(string(got.Value), err)
	default:
		fmt.Println("it did not happen:", err)
	}
}

// An order is taken from one list to another, unless somebody else was faster.
func ExampleClient_Transact() {
	var c *client.Client // from Connect
	ctx := context.Background()
	open, err := c.Get(ctx, []byte("open/17"))
	if errors.Is(err, client.ErrNotFound) {
		fmt.Println("somebody has it already")
		return
	}
	_, err = c.Transact(ctx, client.Transaction{
		If:   []client.Condition{client.RevisionIs(open.Key, open.Revision)},
		Then: []client.Operation{client.DeleteOperation(open.Key), client.PutOperation([]byte("mine/17"), open.Value)},
	})
	if errors.Is(err, client.ErrConflict) {
		fmt.Println("somebody was faster")
	}
}

func ExampleClient_Scan() {
	var c *client.Client // from Connect
	for item, err := range c.Scan(context.Background(), []byte("user/"), []byte("user0"), client.ScanOptions{}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s = %s\n", item.Key, item.Value)
	}
}

// A program that is made of actors spawns the client itself and asks it with
// messages.
func ExampleNew() {
	var random [messages.ClientIDSize]byte
	_, _ = rand.Read(random[:])
	world := production.World(slog.Default(), nil)
	system, root := world.Runtime.NewSystem(messages.ClientAddress(random[:]), world.Logger)
	defer system.Shutdown()
	keeper, err := root.SpawnNamed(actor.PropsFromProducer(client.New(client.Config{
		Endpoints: []string{"127.0.0.1:7001"}, Network: grpc.New(grpc.Options{}), World: world,
	})), "client")
	if err != nil {
		fmt.Println(err)
		return
	}
	root.Spawn(actor.PropsFromFunc(func(ctx actor.Context) {
		switch m := ctx.Message().(type) {
		case *actor.Started:
			ctx.Request(keeper, &messages.Submit{Tag: 1, DeadlineMs: 2000, Read: &messages.Read{
				Kind: &messages.Read_Get{Get: &messages.Get{Key: []byte("color")}},
			}})
		case *messages.Done:
			fmt.Println(m.Tag, m.Read.Code, m.RequestId)
		}
	}))
}
