package cli

import (
	"context"
	"os"
	"path/filepath"

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

// files are the files of keys that flags, variables or serve's file name, of a node or a user;
// those of a user may lack a certificate. None: no keys are named.
func (c *Call) files(kind transport.PrincipalKind) (keys.Files, error) {
	var text, from [len(keyFlags)]string
	for i, f := range keyFlags {
		text[i], from[i] = c.setting(f.flag, f.env, "")
	}
	files := keys.Files{CA: text[1], Cert: text[2], Key: text[3]}
	switch {
	case text[0] == "" && files == (keys.Files{}):
		return files, nil
	case text[0] != "" && files != (keys.Files{}):
		return files, c.usage("name the directory, or the three files", "--certs-dir excludes --cacert, --cert and --key")
	case text[0] != "":
		if files = keys.FilesIn(text[0], kind); exists(files.Cert) {
			return files, nil
		}
		if kind == transport.UserKey && exists(files.CA) {
			return keys.Files{CA: files.CA}, nil
		}
		make := "kvctl cert create-client USER --dir DIR makes one, in DIR/users/USER"
		if kind == transport.NodeKey {
			make = "kvctl cert create-node NAME HOST --dir DIR makes one, in DIR/nodes/NAME"
		}
		return files, messages.Errorf(messages.Code_INVALID, "%s: there is no %s in %s", from[0], filepath.Base(files.Cert), text[0]).WithHint("%s", make)
	case files.CA == "" || (files.Cert == "") != (files.Key == "") || files.Cert == "" && kind == transport.NodeKey:
		return files, c.usage("or put them into one directory, and name it: --certs-dir DIR", "--cacert, --cert and --key are needed together")
	}
	return files, nil
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
