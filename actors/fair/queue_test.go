package fair

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// pops takes n items, named after their key.
func pops(q *Queue[string, string], n int) string {
	var out []string
	for range n {
		if value, ok := q.Pop(); ok {
			out = append(out, value)
		}
	}
	return strings.Join(out, " ")
}

func TestQueueServesKeysInTurn(t *testing.T) {
	for _, row := range []struct {
		name  string
		push  string // key and number, with their cost
		order string
	}{
		{"one key, in order", "a1:1 a2:1 a3:1", "a1 a2 a3"},
		{"a late one does not wait for a flood", "a1:2 a2:2 a3:2 a4:2 b1:2", "a1 b1 a2 a3 a4"},
		{"as much as a turn costs", "a1:1 a2:1 a3:1 b1:1 b2:1 b3:1", "a1 a2 b1 b2 a3 b3"},
		{"the dear wait for credit", "a1:6 a2:6 b1:2 b2:2 b3:2 b4:2", "b1 b2 a1 b3 b4 a2"},
		{"the dear alone", "a1:1000 a2:1", "a1 a2"},
		{"many", "a1:2 a2:2 b1:2 c1:2 c2:2 d1:2", "a1 b1 c1 d1 a2 c2"},
	} {
		q := New[string, string](2)
		for _, one := range strings.Fields(row.push) {
			var cost int
			name, number, _ := strings.Cut(one, ":")
			fmt.Sscan(number, &cost)
			q.Push(name[:1], name, cost)
		}
		if got := pops(q, 100); got != row.order {
			t.Errorf("%s: %s, want %s", row.name, got, row.order)
		}
		if q.Cost() != 0 || len(q.lines) != 0 || q.turn != nil {
			t.Errorf("%s: something is left", row.name)
		}
	}
}

func TestQueueKeepsRoomForNewcomers(t *testing.T) {
	q := New[string, int](1)
	counts := map[string]int{}
	for range 1000 {
		for _, key := range []string{"a", "b", "c"} {
			if q.Room(key, 1, 100) {
				q.Push(key, 0, 1)
				counts[key]++
			}
		}
	}
	if fmt.Sprint(counts) != "map[a:25 b:25 c:25]" || !q.Room("d", 25, 100) || q.Room("d", 26, 100) {
		t.Errorf("the greedy have %v", counts)
	}
}

func TestQueueDrops(t *testing.T) {
	q := New[string, string](2)
	for _, name := range []string{"a1", "a2", "b1", "a3", "b2", "c1"} {
		q.Push(name[:1], name, 2)
	}
	q.Drop("x", func(string) bool { return true })
	q.Drop("a", func(s string) bool { return s == "a2" })
	q.Drop("b", func(string) bool { return true })
	if !q.Holds("a", func(s string) bool { return s == "a1" }) || q.Cost() != 6 {
		t.Errorf("a1 is not there; cost %d", q.Cost())
	}
	if q.Holds("b", func(string) bool { return true }) {
		t.Error("b is still there")
	}
	if got := pops(q, 9); got != "a1 c1 a3" {
		t.Errorf("left are %s", got)
	}
}

// Whatever comes and goes: nothing is lost, each key's items keep their order, and keys
// that wait all the while are served alike, but for a turn and one item.
func TestQueueIsFair(t *testing.T) {
	const quantum, costMax = 8, 20
	rapid.Check(t, func(t *rapid.T) {
		q := New[int, [2]int](quantum)
		waiting, pushed, popped, served, total := map[int]int{}, map[int]int{}, map[int]int{}, map[int]int{}, 0
		costs := map[[2]int]int{}
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			if rapid.IntRange(0, 2).Draw(t, "what") > 0 {
				key, cost := rapid.IntRange(0, 4).Draw(t, "key"), rapid.IntRange(0, costMax).Draw(t, "cost")
				value := [2]int{key, pushed[key]}
				if pushed[key]++; waiting[key] == 0 {
					served = map[int]int{} // from here all that wait are to be served alike
				}
				q.Push(key, value, cost)
				costs[value], total = cost, total+cost
				waiting[key]++
			} else if value, ok := q.Pop(); ok {
				key := value[0]
				if value[1] != popped[key] {
					t.Fatalf("%v came before %d of its key", value, popped[key])
				}
				popped[key]++
				total -= costs[value]
				served[key] += costs[value]
				if waiting[key]--; waiting[key] == 0 {
					served = map[int]int{}
				}
			}
			if q.Cost() != total {
				t.Fatalf("cost %d, want %d", q.Cost(), total)
			}
			for a, n := range waiting {
				for b, m := range waiting {
					if n > 0 && m > 0 && served[a]-served[b] > 2*(quantum+costMax) {
						t.Fatalf("served of %d: %d, of %d: %d", a, served[a], b, served[b])
					}
				}
			}
		}
	})
}
