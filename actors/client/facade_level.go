package client

import (
	"context"

	"keyval/messages"
)

// RaiseLevelResult is the outcome of a RaiseLevel.
type RaiseLevelResult struct {
	Level     uint32 // of the cluster from now on
	Before    uint32 // when it was asked for; equal: nothing was to be done
	Endpoint  string // of the node that had it raised
	RequestID string
}

// RaiseLevel raises the cluster's level, for good: to the given one, or if it is 0 to the
// newest that the software of any member supports. The code of the error is
// UNSAFE if a member does not answer or does not support it, and INVALID if the cluster is
// above it. The same level twice does no harm.
func (c *Client) RaiseLevel(ctx context.Context, level uint32) (RaiseLevelResult, error) {
	d, err := c.call(ctx, &messages.Submit{Cluster: &messages.ClusterRequest{
		Kind: &messages.ClusterRequest_LevelRaise{LevelRaise: &messages.LevelRaise{Level: level}},
	}})
	r := RaiseLevelResult{
		Level: d.GetCluster().GetLevel(), Before: d.GetCluster().GetLevelBefore(), Endpoint: d.GetEndpoint(), RequestID: d.GetRequestId(),
	}
	if messages.CodeOf(err) == messages.Code_OUTCOME_UNKNOWN {
		err = reworded(err, func(e *messages.Error) { e.Hint = "kvctl cluster level shows it; to raise again does no harm" })
	}
	return r, err
}
