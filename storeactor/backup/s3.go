package backup

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"keyval/messages"
)

const (
	// partBytes is the size of a part of an upload, and of the memory that it takes. A larger
	// backup has larger ones, so that it has no more than the protocol allows.
	partBytes = 16 << 20
	partsMax  = 9_000
	// retriesMax bounds how often a request is tried; the client waits longer each time.
	retriesMax = 4
)

// bucket is the Location of objects in a bucket whose names begin with a prefix. An object is
// there once its upload is complete, and not before: that is the protocol's own promise.
type bucket struct {
	client *minio.Client
	name   string
	prefix string // empty, or with a / at its end
}

// locateS3 reads s3://BUCKET/PREFIX; what ends as backups do is one object. Who asks, and whom,
// say the variables that other clients of such stores read: AWS_ACCESS_KEY_ID,
// AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL,
// AWS_PROFILE with ~/.aws/credentials; on a machine of the cloud, its own role.
func locateS3(where string) (Location, string, error) {
	name, prefix, _ := strings.Cut(strings.TrimPrefix(where, s3Scheme), "/")
	if name == "" {
		return nil, "", messages.Errorf(messages.Code_INVALID, "%s names no bucket", where).WithHint("write s3://BUCKET/PREFIX")
	}
	endpoint, err := url.Parse(cmp.Or(os.Getenv("AWS_ENDPOINT_URL_S3"), os.Getenv("AWS_ENDPOINT_URL"), "https://s3.amazonaws.com"))
	if err != nil || endpoint.Host == "" || strings.Trim(endpoint.Path, "/") != "" {
		return nil, "", messages.Errorf(messages.Code_INVALID, "AWS_ENDPOINT_URL is no http(s)://HOST:PORT")
	}
	client, err := minio.New(endpoint.Host, &minio.Options{
		Creds: credentials.NewChainCredentials([]credentials.Provider{
			&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}, &credentials.IAM{},
		}),
		Secure: endpoint.Scheme != "http", Region: cmp.Or(os.Getenv("AWS_REGION"), os.Getenv("AWS_DEFAULT_REGION")), MaxRetries: retriesMax,
	})
	if err != nil {
		return nil, "", messages.Errorf(messages.Code_INVALID, "%s: %v", where, err)
	}
	b := &bucket{client: client, name: name, prefix: prefix}
	if strings.HasSuffix(prefix, suffix) {
		dir, object := path.Split(prefix)
		b.prefix = dir
		return b, object, nil
	}
	if prefix != "" && !strings.HasSuffix(prefix, "/") {
		b.prefix += "/"
	}
	return b, "", nil
}

func (b *bucket) Path(name string) string { return s3Scheme + path.Join(b.name, b.prefix, name) }

// problem gives an error of the store a code and a next step.
func (b *bucket) problem(what, name string, err error) error {
	if known, ok := errors.AsType[*messages.Error](err); ok {
		return known
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	r := minio.ToErrorResponse(err)
	switch {
	case r.Code == minio.NoSuchKey:
		return messages.Errorf(messages.Code_NOT_FOUND, "there is no backup %s", b.Path(name))
	case r.Code == minio.NoSuchBucket:
		return messages.Errorf(messages.Code_NOT_FOUND, "there is no bucket %s at %s", b.name, b.client.EndpointURL()).WithHint("make it first")
	case r.StatusCode == 412 || r.StatusCode == 409:
		return messages.Errorf(messages.Code_CONFLICT, "%s is there by now", b.Path(name)).WithHint("name another")
	case r.StatusCode == 401 || r.StatusCode == 403:
		return messages.Errorf(messages.Code_NOT_ALLOWED, "%s %s: %v", what, b.Path(name), err).At(b.client.EndpointURL().String(), r.RequestID).
			WithHint("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, say who asks")
	case r.StatusCode == 0:
		return messages.Errorf(messages.Code_UNREACHABLE, "%s %s: %v", what, b.Path(name), err).At(b.client.EndpointURL().String(), "").
			WithHint("AWS_ENDPOINT_URL says where the store is")
	}
	return messages.Errorf(messages.Code_INTERNAL, "%s %s: %v", what, b.Path(name), err).At(b.client.EndpointURL().String(), r.RequestID).WithHint("try again")
}

func (b *bucket) Names(ctx context.Context) (names []string, err error) {
	for object := range b.client.ListObjectsIter(ctx, b.name, minio.ListObjectsOptions{Prefix: b.prefix + prefix}) {
		if object.Err != nil {
			return nil, b.problem("list", "", object.Err)
		}
		if name := strings.TrimPrefix(object.Key, b.prefix); named(name) && !strings.Contains(name, "/") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}

func (b *bucket) Open(ctx context.Context, name string) (io.ReadCloser, int64, error) {
	object, err := b.client.GetObject(ctx, b.name, b.prefix+name, minio.GetObjectOptions{})
	if err != nil {
		return nil, 0, b.problem("read", name, err)
	}
	info, err := object.Stat()
	if err != nil {
		return nil, 0, errors.Join(b.problem("read", name, err), object.Close())
	}
	return &download{object, b, name}, info.Size, nil
}

// download is an object that is read.
type download struct {
	*minio.Object
	from *bucket
	name string
}

func (d *download) Read(p []byte) (int, error) {
	n, err := d.Object.Read(p)
	if err != nil && err != io.EOF {
		err = d.from.problem("read", d.name, err)
	}
	return n, err
}

// absent is CONFLICT if there is an object of the name.
func (b *bucket) absent(ctx context.Context, name string) error {
	_, err := b.client.StatObject(ctx, b.name, b.prefix+name, minio.StatObjectOptions{})
	if err == nil {
		return messages.Errorf(messages.Code_CONFLICT, "%s is there already", b.Path(name)).WithHint("name another file, or a prefix")
	}
	if err = b.problem("write", name, err); messages.CodeOf(err) == messages.Code_NOT_FOUND && minio.ToErrorResponse(err).Code != minio.NoSuchBucket {
		return nil
	}
	return err
}

func (b *bucket) Create(ctx context.Context, name string, bytes uint64) (Upload, error) {
	if err := b.absent(ctx, name); err != nil {
		return nil, err
	}
	from, to := io.Pipe()
	u := &upload{PipeWriter: to, ended: make(chan error, 1), absent: func() error { return b.absent(ctx, name) }}
	options := minio.PutObjectOptions{
		ContentType: "application/octet-stream", PartSize: max(partBytes, bytes/partsMax),
		DisableContentSha256: true, // parts have a CRC32C, and a backup its own hash
	}
	options.SetMatchETagExcept("*")
	go func() {
		_, err := b.client.PutObject(ctx, b.name, b.prefix+name, from, -1, options)
		if err != nil {
			err = b.problem("write", name, err)
		}
		_ = from.CloseWithError(err) // who writes on hears of it; it never fails
		u.ended <- err
	}()
	return u, nil
}

// upload is an object that is being written, in parts.
type upload struct {
	*io.PipeWriter
	ended  chan error
	absent func() error
	over   bool
}

var errGivenUp = messages.Errorf(messages.Code_INTERNAL, "the upload was given up")

// Commit completes it. Until then there is no object, and a process that dies leaves parts
// that have no name.
func (u *upload) Commit() error {
	if err := u.absent(); err != nil { // a store may not know conditions
		return err
	}
	u.over = true
	if err := u.Close(); err != nil {
		return err
	}
	return <-u.ended
}

func (u *upload) Abort() error {
	if u.over {
		return nil
	}
	u.over = true
	_ = u.CloseWithError(errGivenUp) // it never fails
	<-u.ended
	return nil
}

func (b *bucket) Remove(ctx context.Context, name string) error {
	if err := b.client.RemoveObject(ctx, b.name, b.prefix+name, minio.RemoveObjectOptions{}); err != nil {
		return b.problem("remove", name, err)
	}
	return nil
}
