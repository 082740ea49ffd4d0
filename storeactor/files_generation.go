package storeactor

import (
	"io"

	"go.etcd.io/raft/v3/raftpb"

	"keyval/messages"
)

var errPlaceholder = messages.Errorf(messages.Code_UNSUPPORTED, "not there yet")

func (f *files) Stage() (Staging, error)                                { return nil, errPlaceholder }
func (f *files) Install(index, term uint64, hs *raftpb.HardState) error { return errPlaceholder }
func (f *files) Condemn(reason string) error                            { return errPlaceholder }
func (f *files) Archive() Archive                                       { return f }
func (f *files) List() ([]ArchiveFile, error)                           { return nil, errPlaceholder }
func (f *files) Create(id string) (ArchiveWriter, error)                { return nil, errPlaceholder }
func (f *files) Open(id string) (io.ReadCloser, error)                  { return nil, errPlaceholder }
func (f *files) Delete(id string) error                                 { return errPlaceholder }

func (l *walLog) Cut(index, term uint64, conf *raftpb.ConfState) error { return errPlaceholder }

func (e *badgerEngine) Discard(floor uint64) {}
func (e *badgerEngine) Reclaim() error       { return errPlaceholder }
func (e *badgerEngine) Size() int64          { return 0 }
