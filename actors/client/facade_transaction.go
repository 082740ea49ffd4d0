package client

import (
	"bytes"
	"context"

	"keyval/messages"
)

// Transaction is one command of several operations. It takes one revision, and all of it
// happens or nothing; nobody ever sees a part. If every condition holds, Then is carried out,
// else Otherwise. Operations see the effects of those before them; conditions are judged as of
// before the first. Each of the three has up to 128 elements, and all of it takes about
// 512 KiB at most.
type Transaction struct {
	If        []Condition // none: it always holds
	Then      []Operation
	Otherwise []Operation // none: a condition that does not hold is the error Conflict
}

// Operation is one step of a Transaction.
type Operation struct{ message *messages.Operation }

// PutOperation stores a value, as Put does.
func PutOperation(key, value []byte) Operation {
	return Operation{&messages.Operation{Kind: &messages.Operation_Put{Put: &messages.Put{Key: key, Value: value}}}}
}

// DeleteOperation removes a key, as Delete does.
func DeleteOperation(key []byte) Operation {
	return Operation{&messages.Operation{Kind: &messages.Operation_Delete{Delete: &messages.Delete{Key: key}}}}
}

// Condition is something that a key has to be, for a Transaction.
type Condition struct{ message *messages.Condition }

// RevisionIs holds while the last write of a key is of this revision; 0: while there is no
// such key.
func RevisionIs(key []byte, revision uint64) Condition {
	return Condition{IfRevision(revision)(key)}
}

// Absent holds while there is no such key.
func Absent(key []byte) Condition { return RevisionIs(key, 0) }

// Present holds while there is such a key.
func Present(key []byte) Condition {
	c := RevisionIs(key, 0)
	c.message.Comparison = messages.Comparison_GREATER
	return c
}

// ValueIs holds while a key is there and has this value.
func ValueIs(key, value []byte) Condition {
	return Condition{&messages.Condition{Key: key, Target: &messages.Condition_Value{Value: bytes.Clone(value)}}}
}

// TransactionResult is the outcome of a Transaction.
type TransactionResult struct {
	Held      bool   // every condition held: Then was carried out, and else Otherwise
	Failed    int    // the place in If of the first condition that did not hold; -1: they all did
	Deleted   uint64 // keys
	Revision  uint64 // of all that was written; if nothing was, the newest at that moment
	RequestID string
}

// Transact carries out a transaction. One without operations, or too large, is Invalid.
func (c *Client) Transact(ctx context.Context, t Transaction) (TransactionResult, error) {
	m := &messages.Submit{}
	for _, condition := range t.If {
		m.Conditions = append(m.Conditions, condition.message)
	}
	for _, operation := range t.Then {
		m.Operations = append(m.Operations, operation.message)
	}
	for _, operation := range t.Otherwise {
		m.Otherwise = append(m.Otherwise, operation.message)
	}
	if len(m.Operations)+len(m.Otherwise) == 0 {
		return TransactionResult{}, messages.Errorf(messages.Code_INVALID, "the transaction has no operation").WithHint("give it something to do in Then or Otherwise")
	}
	d, err := c.call(ctx, m)
	w := d.GetWrite()
	return TransactionResult{
		Held: err == nil && w.GetFailedCondition() == 0, Failed: int(w.GetFailedCondition()) - 1, Deleted: w.GetDeleted(),
		Revision: w.GetRevision(), RequestID: d.GetRequestId(),
	}, err
}
