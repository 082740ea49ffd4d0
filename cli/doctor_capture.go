package cli

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"keyval/cli/doctor"
	"keyval/messages"
)

// captureJSON is what a report of a defect needs. What nodes said stands as they said it.
type captureJSON struct {
	At       time.Time         `json:"captured_at"`
	Version  string            `json:"kvctl_version"`
	Findings []doctor.Finding  `json:"findings"`
	Nodes    []captureNodeJSON `json:"nodes"`
	Cluster  json.RawMessage   `json:"cluster"` // null: nobody told of it
	Read     captureReadJSON   `json:"linearizable_read"`
}

type captureNodeJSON struct {
	Name     string          `json:"name"`
	Endpoint string          `json:"endpoint"`
	Status   json.RawMessage `json:"status"` // null: it did not answer
	Code     string          `json:"code"`   // why
	Error    string          `json:"error"`
}

type captureReadJSON struct {
	TookMS int64  `json:"took_ms"`
	Error  string `json:"error"`
}

// capture writes a file that is not there yet. Nothing in it is of what clients have stored: a
// status has no keys and no values.
func (c *Call) capture(file string, facts doctor.Facts, found []doctor.Finding) error {
	all := captureJSON{At: facts.Now.UTC(), Version: version(), Findings: found, Nodes: []captureNodeJSON{}, Read: captureReadJSON{TookMS: facts.Took.Milliseconds()}}
	if facts.Read != nil {
		all.Read.Error = facts.Read.Error()
	}
	for _, n := range facts.Nodes {
		is := captureNodeJSON{Name: n.Name, Endpoint: n.Endpoint, Code: messages.Code_OK.String()}
		if n.Status != nil {
			is.Status = asJSON(n.Status)
		}
		if n.Problem != nil {
			is.Code, is.Error = n.Problem.Code.String(), n.Problem.Message
		}
		all.Nodes = append(all.Nodes, is)
	}
	if facts.Cluster != nil {
		all.Cluster = asJSON(facts.Cluster.ClusterReply)
	}
	text, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return messages.Errorf(messages.Code_INTERNAL, "write down what was collected: %v", err)
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return messages.Errorf(messages.Code_CONFLICT, "--capture: %s is there already", file).WithHint("name a new file")
	}
	if err == nil {
		_, err = f.Write(append(text, '\n'))
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return messages.Errorf(messages.Code_INVALID, "--capture: %v", err).WithHint("name a file in a directory that can be written to")
	}
	c.note("%s holds what was collected: names, addresses and counts of %s, no keys and no values", file, plural(uint64(len(all.Nodes)), "node"))
	return nil
}

func asJSON(m proto.Message) json.RawMessage {
	text, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(m)
	if err != nil {
		return nil
	}
	return text
}
