// Package messages is the vocabulary of KeyVal: every message that actors,
// nodes and clients exchange, the codes of results, and the names of things.
//
// The .proto files stand by compatibility boundary: client.proto and peer.proto
// are a frozen wire, command.proto is what logs and disks hold for ever, and
// node.proto stays inside one process and is free to change. What is true of a
// message beside its fields stands with it as an option of options.proto.
//
// A message is never modified after it was sent.
package messages
