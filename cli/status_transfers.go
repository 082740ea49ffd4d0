package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"keyval/messages"
)

// transferJSON is a snapshot on its way to or from a node.
type transferJSON struct {
	Peer       string `json:"peer"` // name of the other side
	Incoming   bool   `json:"incoming"`
	Index      uint64 `json:"index,string"` // of the snapshot
	BytesDone  uint64 `json:"bytes_done"`
	BytesTotal uint64 `json:"bytes_total"` // about
	Rate       uint64 `json:"rate_bytes_per_s"`
	ETAMs      uint64 `json:"eta_ms"`      // 0: not known
	WaitingFor string `json:"waiting_for"` // empty: it goes on
}

func transfersOf(s *messages.StatusReply) []transferJSON {
	transfers := []transferJSON{}
	for _, t := range s.Transfers {
		peer := fmt.Sprintf("node %d", t.Peer)
		if i := slices.IndexFunc(s.Members, func(m *messages.Member) bool { return m.RaftId == t.Peer }); i >= 0 {
			peer = s.Members[i].Name
		}
		transfers = append(transfers, transferJSON{peer, t.Incoming, t.Index, t.BytesDone, t.BytesTotal, t.Rate, t.EtaMs, t.WaitingFor})
	}
	return transfers
}

// transferLines tells of each transfer once: as its receiver sees it, or if the
// receiver did not say, its sender.
func transferLines(rows []nodeJSON) []string {
	type way struct{ from, to string }
	seen := map[way]bool{}
	var lines []string
	for _, incoming := range []bool{true, false} {
		for _, r := range rows {
			for _, t := range r.Transfers {
				w := way{t.Peer, r.Name}
				if !t.Incoming {
					w = way{r.Name, t.Peer}
				}
				if t.Incoming != incoming || seen[w] {
					continue
				}
				seen[w] = true
				t.WaitingFor = strings.ReplaceAll(t.WaitingFor, "this node", r.Name)
				lines = append(lines, fmt.Sprintf("%s catches up from %s: %s", w.to, w.from, t.text()))
			}
		}
	}
	slices.Sort(lines)
	return lines
}

// text says how far a transfer is.
func (t transferJSON) text() string {
	text := bytesText(t.BytesDone)
	if t.BytesTotal > 0 {
		text += " of about " + bytesText(max(t.BytesDone, t.BytesTotal))
	}
	if t.Rate > 0 {
		text += ", " + bytesText(t.Rate) + "/s"
	}
	if t.ETAMs > 0 {
		text += ", about " + timeText(time.Duration(t.ETAMs)*time.Millisecond) + " left"
	}
	if t.WaitingFor != "" {
		text += "; waiting: " + t.WaitingFor
	}
	return text
}
