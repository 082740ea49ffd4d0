package cli

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// bytesText is a size for people: 999 B, 2.5 MB, 312 MB.
func bytesText(n uint64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	size := float64(n)
	for _, unit := range []string{"kB", "MB", "GB", "TB"} {
		size /= 1000
		switch {
		case size < 9.95:
			return fmt.Sprintf("%.1f %s", size, unit)
		case size < 999.5 || unit == "TB":
			return fmt.Sprintf("%.0f %s", size, unit)
		}
	}
	return ""
}

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

// byteUnits are what parseBytes understands, in small letters.
var byteUnits = map[string]float64{
	"": 1, "b": 1, "k": 1e3, "kb": 1e3, "m": 1e6, "mb": 1e6, "g": 1e9, "gb": 1e9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30,
}

// parseBytes reads a size such as 64MiB, 1.5GB or 500.
func parseBytes(text string) (uint64, bool) {
	digits := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
	unit, known := byteUnits[strings.ToLower(strings.TrimSpace(text[len(digits):]))]
	number, err := strconv.ParseFloat(digits, 64)
	size := number * unit
	if err != nil || !known || number < 0 || math.IsNaN(size) || size >= 1<<63 {
		return 0, false
	}
	return uint64(size), true
}
