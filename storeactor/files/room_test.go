package files

import (
	"log/slog"
	"os"
	"testing"
)

func TestRoomCountsDescriptors(t *testing.T) {
	d, err := Open(t.TempDir(), slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	before, err := d.Room()
	if err != nil {
		t.Fatal(err)
	}
	if before.Bytes == 0 || before.Bytes > before.BytesAll || before.Files > before.FilesAll || before.Descriptors > before.DescriptorsAll {
		t.Errorf("%+v", before)
	}
	const more = 100
	for range more {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
	}
	after, err := d.Room()
	if taken := before.Descriptors - after.Descriptors; err != nil || before.DescriptorsAll > 0 && taken != more {
		t.Errorf("%d descriptors were opened, %d are counted: %v", more, taken, err)
	}
}

func BenchmarkRoom(b *testing.B) {
	d, err := Open(b.TempDir(), slog.New(slog.DiscardHandler), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	for range 5000 {
		f, err := os.Open(os.DevNull)
		if err != nil {
			b.Skip(err)
		}
		defer f.Close()
	}
	for b.Loop() {
		if _, err := d.Room(); err != nil {
			b.Fatal(err)
		}
	}
}
