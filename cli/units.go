package cli

import (
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
)

// bytesText is a size for people: 999 B, 2.5 MB, 312 MB.
func bytesText(n uint64) string { return humanize.Bytes(n) }

// timeText is a duration for people: 14 s, 3 min 20 s, 2 h 5 min.
func timeText(d time.Duration) string {
	seconds := int64(d.Round(time.Second) / time.Second)
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case seconds < 60:
		return fmt.Sprintf("%d s", seconds)
	case seconds < 3600:
		return fmt.Sprintf("%d min %d s", seconds/60, seconds%60)
	}
	return fmt.Sprintf("%d h %d min", seconds/3600, seconds%3600/60)
}
