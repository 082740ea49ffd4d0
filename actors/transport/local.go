// Package transport is the law of the links between actor systems: who may connect,
// what may pass on a connection, and how it stands on the wire. It decides and knows
// no network; actors/transport/grpc, and the simulator, carry things where it lets
// them.
//
// A guard stands at every entrance. Until the hello of a connection is admitted
// nothing passes; afterwards each envelope is held against what that role may
// send to which actor. Sender addresses are never on the wire: they are those
// of the connection. System messages come from nobody.
package transport

import "keyval/messages"

// Local is who a system says it is.
type Local struct {
	Role        messages.Role
	ClusterID   []byte // empty while founding, and of a client that takes any cluster
	RaftID      messages.RaftID
	Incarnation []byte
	Starts      *messages.Starts // of the node's directory; nil while founding
	Name        string
	Address     string // logical: node/<RaftID> or client/<32 hex digits>
	Version     string
	WaitingFor  string // why the node does not serve yet

	// Token is what a client shows in place of a certificate; empty: nothing.
	Token string

	// Principal is who the system's own certificate names. The zero Principal: its links
	// carry no keys, and those of others are not asked for.
	Principal Principal

	Inbox *Inbox // of the node's raft actor; nil: none, or without a bound
}
