package sim

import (
	"io"

	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
	"keyval/storeactor"
)

var errPlaceholder = messages.Errorf(messages.Code_UNSUPPORTED, "not there yet")

func (d *Disk) Stage() (storeactor.Staging, error)                     { return nil, errPlaceholder }
func (d *Disk) Install(index, term uint64, hs *raftpb.HardState) error { return errPlaceholder }
func (d *Disk) Condemn(reason string) error                            { return errPlaceholder }
func (d *Disk) Archive() storeactor.Archive                            { return d }
func (d *Disk) List() ([]storeactor.ArchiveFile, error)                { return nil, errPlaceholder }
func (d *Disk) Create(id string) (storeactor.ArchiveWriter, error)     { return nil, errPlaceholder }
func (d *Disk) Open(id string) (io.ReadCloser, error)                  { return nil, errPlaceholder }
func (d *Disk) Delete(id string) error                                 { return errPlaceholder }

func (h *logHandle) Cut(index, term uint64, conf *raftpb.ConfState) error { return errPlaceholder }

func (h *engineHandle) Export(after storeactor.Cursor, floor, revision uint64, yield func(storeactor.Row) bool) error {
	return errPlaceholder
}
func (h *engineHandle) Discard(floor uint64) {}
func (h *engineHandle) Reclaim() error       { return errPlaceholder }
func (h *engineHandle) Size() int64          { return 0 }
