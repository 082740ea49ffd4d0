package cli

import (
	"fmt"
	"io"
	"strings"

	urfave "github.com/urfave/cli/v2"
)

// completeWord is what the shells' scripts call: kvctl __complete WORDS, the
// last of which is being typed. It is no command of the tree: completing reads
// the tree and never runs anything.
const completeWord = "__complete"

// filesWanted is the line that asks the shell to complete names of files.
const filesWanted = ":files"

// choices are the values of flags and arguments that are one of a few.
var choices = map[string][]string{
	"output":      {"table", "json", "jsonl", "simple"},
	"consistency": {"linearizable", "stale"},
	"faults":      {"on", "off"},
	"progress":    {"auto", "plain", "json", "none"},
	"log-format":  {"text", "json"},
	"log-level":   {"debug", "info", "warn", "error"},
	"SHELL":       {"bash", "zsh", "fish"},
}

// complete prints what may stand in place of the last word: a line each, with
// its meaning behind a tab.
func complete(w io.Writer, app *urfave.App, line []string) {
	if len(line) == 0 {
		line = []string{""}
	}
	typed := line[len(line)-1]
	before := read(app, line[:len(line)-1])
	var rows []helpRow
	switch name, value, valued := strings.Cut(typed, "="); {
	case before.dangling != "":
		rows = valueRows(flagNamed(app, strings.TrimLeft(before.dangling, "-")), "")
	case before.closed:
	case valued && strings.HasPrefix(name, "-"):
		if f := flagNamed(app, strings.TrimLeft(name, "-")); f != nil && takesValue(f) {
			rows, typed = valueRows(f, name+"="), name+"="+value
		}
	case strings.HasPrefix(typed, "-"):
		rows = typedFlags(app, before.path)
	case before.unknownWord != "":
	default:
		rows = wordRows(app, before)
	}
	for _, r := range rows {
		if r.left == filesWanted {
			fmt.Fprintln(w, r.left)
		} else if strings.HasPrefix(r.left, typed) {
			fmt.Fprintf(w, "%s\t%s\n", r.left, r.right)
		}
	}
}

func typedFlags(app *urfave.App, path []*urfave.Command) []helpRow {
	var rows []helpRow
	for _, f := range flagsOf(app, path) {
		usage := ""
		if d, ok := f.(urfave.DocGenerationFlag); ok {
			_, usage = unquote(d.GetUsage())
		}
		for _, n := range f.Names() {
			rows = append(rows, helpRow{flagWord(n), usage})
		}
	}
	return rows
}

func valueRows(f urfave.Flag, prefix string) []helpRow {
	name := f.Names()[0]
	if text, is := f.(*urfave.StringFlag); is && text.TakesFile {
		return []helpRow{{filesWanted, ""}}
	}
	return choiceRows(name, prefix)
}

func choiceRows(name, prefix string) []helpRow {
	var rows []helpRow
	for _, value := range choices[name] {
		rows = append(rows, helpRow{prefix + value, ""})
	}
	return rows
}

// wordRows is the commands that may follow, or the argument in turn.
func wordRows(app *urfave.App, l words) []helpRow {
	if commands := below(app, l.path); len(commands) > 0 {
		return commandRows(commands)
	}
	declared := strings.Fields(l.path[len(l.path)-1].ArgsUsage)
	if len(l.args) >= len(declared) {
		return nil
	}
	argument := strings.Trim(declared[len(l.args)], "[].")
	if argument == "COMMAND" {
		return commandRows(app.Commands)
	}
	return choiceRows(argument, "")
}

func newCompletion(sh *Shell) *urfave.Command {
	return &urfave.Command{
		Name:      "completion",
		Usage:     "print a script that completes kvctl's commands in a shell",
		ArgsUsage: "SHELL",
		Description: `SHELL is bash, zsh or fish. The script asks kvctl itself for what may follow,
which reads no cluster and changes nothing.`,
		UsageText: `source <(kvctl completion bash)
kvctl completion fish > ~/.config/fish/completions/kvctl.fish`,
		Action: sh.action(func(c *Call) error {
			script, ok := completionScripts[c.Args[0]]
			if !ok {
				return usagef(c.path, "", "%q is none of bash, zsh, fish", c.Args[0])
			}
			_, err := io.WriteString(sh.Stdout, script)
			return err
		}),
	}
}

var completionScripts = map[string]string{
	"bash": `# kvctl: bash completion. Use: source <(kvctl completion bash)
_kvctl() {
    # Not COMP_WORDS: bash breaks those at "=" and ":", which flags and endpoints hold.
    local line=${COMP_LINE:0:COMP_POINT} words word found
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    word=${words[${#words[@]} - 1]}
    COMPREPLY=()
    while IFS= read -r found; do
        if [[ $found == :files ]]; then
            compopt -o filenames 2>/dev/null
            while IFS= read -r found; do
                COMPREPLY+=("$found")
            done < <(compgen -f -- "${word#-*=}")
            continue
        fi
        found=${found%%$'\t'*}
        [[ $word == -*=* ]] && found=${found#*=}
        COMPREPLY+=("$found")
    done < <("${words[0]}" __complete "${words[@]:1}" 2>/dev/null)
}
complete -F _kvctl kvctl
`,
	"zsh": `#compdef kvctl
# kvctl: zsh completion. Use: source <(kvctl completion zsh)
_kvctl() {
    local line
    local -a found
    for line in "${(@f)$("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
        case $line in
        '') ;;
        :files) _files ;;
        *) found+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}") ;;
        esac
    done
    (( ${#found} )) && _describe kvctl found
}
if [ "$funcstack[1]" = _kvctl ]; then
    _kvctl "$@"
else
    compdef _kvctl kvctl
fi
`,
	"fish": `# kvctl: fish completion. Use: kvctl completion fish | source
function __kvctl_complete
    set -l line (commandline -opc) (commandline -ct)
    for found in ($line[1] __complete $line[2..-1] 2>/dev/null)
        if test "$found" = :files
            __fish_complete_path (commandline -ct)
        else
            echo $found
        end
    end
end
complete -c kvctl -f -a '(__kvctl_complete)'
`,
}
