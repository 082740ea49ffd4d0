//go:build linux

package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// pictureEnv names a file that TestPageInABrowser writes a picture of the page to, amid a
// replace: that of docs/OPERATIONS.md.
const pictureEnv = "KEYVAL_PICTURE"

// browser is a page in a real browser.
type browser struct {
	t   *testing.T
	ctx context.Context
	url string
}

// openBrowser opens an address in chromium. Without one the test is skipped.
func openBrowser(t *testing.T, url string) *browser {
	t.Helper()
	names := []string{"chromium", "chromium-browser", "google-chrome", "chrome", "headless-shell"}
	at := slices.IndexFunc(names, func(name string) bool { _, err := exec.LookPath(name); return err == nil })
	if at < 0 {
		t.Skipf("no browser is installed: none of %s is in the path", strings.Join(names, ", "))
	}
	path, err := exec.LookPath(names[at])
	if err != nil {
		t.Fatal(err)
	}
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath(path), chromedp.WindowSize(1100, 640))
	if os.Getuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	allocator, end := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(end)
	ctx, close := chromedp.NewContext(allocator)
	t.Cleanup(close)
	b := &browser{t, ctx, url}
	if err := chromedp.Do(ctx, chromedp.Navigate(url)); err != nil { // with the context that the browser is to end with
		t.Fatalf("the browser: %v", err)
	}
	in(b, chromedp.Evaluate[bool](`window.live = []; new MutationObserver(() => document.querySelectorAll(".op .now").forEach(e => live.includes(e.textContent) || live.push(e.textContent))).observe(document.body, {childList: true, subtree: true}); window.failures = []; addEventListener("error", e => failures.push(e.message)); addEventListener("unhandledrejection", e => failures.push(String(e.reason))); true`))
	return b
}

// in has a browser do something.
func in[T any](b *browser, action chromedp.Action[T]) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 60*time.Second)
	defer cancel()
	is, err := chromedp.Run(ctx, action)
	if err != nil {
		b.t.Fatalf("the browser: %v", err)
	}
	return is
}

// shows waits until what people see on the page has a match.
func (b *browser) shows(pattern string) {
	b.t.Helper()
	wanted, text := regexp.MustCompile(pattern), ""
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(30 * time.Millisecond) {
		if text = in(b, chromedp.Evaluate[string]("document.body.innerText")); wanted.MatchString(text) {
			return
		}
	}
	b.t.Fatalf("after 30 s the page does not show %q:\n%s", pattern, text)
}

// TestPageInABrowser: the page of a node tells people of a failover, and of a replace, while
// they happen, in a browser that may talk to nobody else.
func TestPageInABrowser(t *testing.T) {
	p, data := devOfThree(t, "--metrics")
	b := openBrowser(t, pageOf(p.endpoints[0]))
	b.shows("(?s)Healthy\\s+Fault budget: survives the loss of .*node1.*node2.*node3.*Operations\\s+none")

	led := p.leaderName()
	if led == "node1" { // it is to stay
		if _, said, code := p.kvctl("cluster", "transfer", "node2"); code != 0 {
			t.Fatalf("transfer: %s", said)
		}
		led = "node2"
	}
	b.shows(led + "\\s+\\S+\\s+yes\\s+leader")
	p.killMember(led)
	b.shows("(?s)Works, with issues.*danger +" + led + " at .*out of contact.*next: .*kvctl cluster replace " + led + ".*" + led + "\\s+\\S+\\s+yes\\s+unreachable.*Its log, lately")
	b.shows(p.leaderName() + "( \\(this one\\))?\\s+\\S+\\s+yes\\s+leader")

	out, err := exec.Command(binary, "dev", "add", "node4", "--data", data).CombinedOutput()
	address := regexp.MustCompile(`node4 runs at (\S+)`).FindSubmatch(out)
	if err != nil || len(address) == 0 {
		t.Fatalf("dev add: %v\n%s", err, out)
	}
	b.shows("node4 at " + string(address[1]) + " waits to be added")
	tool := p.command("cluster", "replace", led, "node4", string(address[1]), "--yes")
	var said bytes.Buffer
	tool.Stdout, tool.Stderr = &said, &said
	if err := tool.Start(); err != nil {
		t.Fatal(err)
	}
	b.shows("(?s)replace " + led + " → node4.*add\\s+catch up\\s+promote\\s+remove old\\s+complete")
	b.picture()
	if err := tool.Wait(); err != nil {
		t.Fatalf("cluster replace: %v\n%s", err, &said)
	}
	b.shows("(?s)Healthy.*node4\\s+\\S+\\s+yes\\s+follower")
	if phases := in(b, chromedp.Evaluate[int]("document.querySelectorAll('.op .done').length")); phases != 5 {
		t.Errorf("%d phases are shown as done, of 5", phases)
	}
	// The page is renewed each second, and catching up takes a second at least: so that phase was seen while it lasted.
	if live := in(b, chromedp.Evaluate[[]string]("live")); !slices.Contains(live, "catch up") {
		t.Errorf("of the phases only %q were shown as being gone through", live)
	}
	if members := in(b, chromedp.Evaluate[string]("document.getElementById('members').innerText")); strings.Contains(members, led) {
		t.Errorf("%s was replaced, and is shown:\n%s", led, members)
	}
	for _, from := range in(b, chromedp.Evaluate[[]string]("performance.getEntriesByType('resource').map(r => r.name)")) {
		if !strings.HasPrefix(from, b.url) {
			t.Errorf("the page asks %s", from)
		}
	}
	if failures := in(b, chromedp.Evaluate[[]string]("failures")); len(failures) > 0 {
		t.Errorf("the page fails: %q", failures)
	}
}

// picture takes one of the page, if somebody wants it.
func (b *browser) picture() {
	file := os.Getenv(pictureEnv)
	if file == "" {
		return
	}
	if err := os.WriteFile(file, in(b, chromedp.FullScreenshot(100)), 0o644); err != nil {
		b.t.Error(err)
	}
}

// pageOf is where kvctl dev --metrics shows the node of an address.
func pageOf(address string) string {
	host, port, _ := net.SplitHostPort(address)
	n, _ := strconv.Atoi(port)
	return "http://" + net.JoinHostPort(host, strconv.Itoa(n+2000)) + "/"
}

// leaderName waits until some node says who leads.
func (p *processes) leaderName() string {
	p.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		out, _, _ := p.kvctl("status", "-o", "simple")
		if found := regexp.MustCompile(`(?m)^(\S+)\t\S+\tleader$`).FindStringSubmatch(out); found != nil {
			return found[1]
		}
	}
	p.t.Fatal("nobody leads after 20 s")
	return ""
}
