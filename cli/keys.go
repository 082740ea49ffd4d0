package cli

import (
	"context"
	"os"
	"path/filepath"

	urfave "github.com/urfave/cli/v2"

	"keyval/actors/transport"
	"keyval/actors/transport/keys"
	"keyval/messages"
)

const (
	envCertsDir = "KVCTL_CERTS_DIR"
	envCACert   = "KVCTL_CACERT"
	envCert     = "KVCTL_CERT"
	envKey      = "KVCTL_KEY"
)

// keyFlags are the global flags that name keys, each with its variable.
var keyFlags = [...]struct{ flag, env string }{{"certs-dir", envCertsDir}, {"cacert", envCACert}, {"cert", envCert}, {"key", envKey}}

// fileFlags are serve's own flags that name files of keys: an authority's, a certificate and its key.
var fileFlags, peerFlags = [...]string{"trusted-ca-file", "cert-file", "key-file"}, [...]string{"peer-trusted-ca-file", "peer-cert-file", "peer-key-file"}

func serveKeyFlags() []urfave.Flag {
	file := func(name, usage string) urfave.Flag {
		return &urfave.StringFlag{Name: name, Usage: usage, TakesFile: true}
	}
	return []urfave.Flag{
		file("trusted-ca-file", "--cacert by another name"),
		file("cert-file", "--cert by another name"),
		file("key-file", "--key by another name"),
		file("peer-trusted-ca-file", "trust the authorities in `FILE` for other nodes, and the others for users alone"),
		file("peer-cert-file", "the certificate for links with other nodes is in `FILE`"),
		file("peer-key-file", "its key is in `FILE`"),
	}
}

// files are the files of keys that flags, variables or serve's file name, of a node or a user;
// those of a user may lack a certificate. None: no keys are named.
func (c *Call) files(kind transport.PrincipalKind) (keys.Files, error) {
	none := keys.Files{}
	var text, from [len(keyFlags)]string
	for i, f := range keyFlags {
		text[i], from[i] = c.setting(f.flag, f.env, "")
		if i > 0 && kind == transport.NodeKey && c.flags.IsSet(fileFlags[i-1]) {
			if text[i] != "" {
				return none, c.usage("name it once", "--%s and %s are the same", fileFlags[i-1], from[i])
			}
			text[i] = c.flags.String(fileFlags[i-1])
		}
	}
	files := keys.Files{CA: text[1], Cert: text[2], Key: text[3]}
	peers, err := c.peerFiles(kind)
	switch {
	case err != nil:
		return none, err
	case text[0] == "" && files == none && peers != nil:
		return none, c.usage("name the others too: --certs-dir DIR", "keys for other nodes are named, and none for users")
	case text[0] == "" && files == none:
		return none, nil
	case text[0] != "" && files != none:
		return none, c.usage("name the directory, or the three files", "--certs-dir excludes --cacert, --cert and --key")
	case text[0] != "":
		if files, err = filesIn(text[0], from[0], kind); err != nil {
			return none, err
		}
	case files.CA == "" || (files.Cert == "") != (files.Key == "") || files.Cert == "" && kind == transport.NodeKey:
		return none, c.usage("or put them into one directory, and name it: --certs-dir DIR", "--cacert, --cert and --key are needed together")
	}
	files.Peers = peers
	return files, nil
}

// filesIn are the files of a directory. That of a user may hold ca.crt alone: he logs in.
func filesIn(dir, source string, kind transport.PrincipalKind) (keys.Files, error) {
	files := keys.FilesIn(dir, kind)
	switch {
	case exists(files.Cert):
		return files, nil
	case kind == transport.UserKey && exists(files.CA):
		return keys.Files{CA: files.CA}, nil
	}
	make := "kvctl cert create-client USER --dir DIR makes one, in DIR/users/USER"
	if kind == transport.NodeKey {
		make = "kvctl cert create-node NAME HOST --dir DIR makes one, in DIR/nodes/NAME"
	}
	return files, messages.Errorf(messages.Code_INVALID, "%s: there is no %s in %s", source, filepath.Base(files.Cert), dir).WithHint("%s", make)
}

// ring loads the keys that are named, with the token of who is logged in where they hold no
// certificate; nil: none are named.
func (c *Call) ring(kind transport.PrincipalKind) (*keys.Ring, error) {
	files, err := c.files(kind)
	if err != nil || files == (keys.Files{}) {
		return nil, err
	}
	if files.Cert == "" {
		return c.loggedIn(files)
	}
	return keys.Load(files)
}

// peerFiles are those of a node's links with other nodes, if they are others; else nil.
func (c *Call) peerFiles(kind transport.PrincipalKind) (*keys.Files, error) {
	if kind != transport.NodeKey {
		return nil, nil
	}
	files := keys.Files{CA: c.flags.String(peerFlags[0]), Cert: c.flags.String(peerFlags[1]), Key: c.flags.String(peerFlags[2])}
	switch {
	case files == (keys.Files{}):
		return nil, nil
	case files.CA == "" || files.Cert == "" || files.Key == "":
		return nil, c.usage("", "--%s, --%s and --%s are needed together", peerFlags[0], peerFlags[1], peerFlags[2])
	}
	return &files, nil
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// keyArgs are the flags that a command to paste needs to come with the same keys.
func (c *Call) keyArgs() string {
	args := ""
	for _, f := range keyFlags {
		if c.flags.IsSet(f.flag) {
			args += " --" + f.flag + " " + quoteWord(c.flags.String(f.flag))
		}
	}
	if c.flags.IsSet("login-file") {
		args += " --login-file " + quoteWord(c.flags.String("login-file"))
	}
	return args
}

type keysIn struct{}

// withKeys has what connects under ctx come with keys, which are loaded when they are
// needed first.
func withKeys(ctx context.Context, load func() (*keys.Ring, error)) context.Context {
	return context.WithValue(ctx, keysIn{}, load)
}

// keysOf are the keys to connect with; nil: none.
func keysOf(ctx context.Context) (*keys.Ring, error) {
	if load, ok := ctx.Value(keysIn{}).(func() (*keys.Ring, error)); ok {
		return load()
	}
	return nil, nil
}
