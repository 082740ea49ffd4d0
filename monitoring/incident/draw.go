package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/color/palette"
	imagedraw "image/draw"
	"image/png"
	"math"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	plotdraw "gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
)

// shown are the panels that are drawn, by title, three in a row.
var shown = []string{
	"Fault budget", "Unreachable", "Leaders and elections",
	"Requests", "Time of a request", "Answers that are no success",
	"Applied", "Lag", "Last heard of",
	"Sync of the log", "Round trip", "CPU",
}

const columns = 3

// panel is one of dashboard.json. A row that is folded has panels of its own.
type panel struct {
	Title   string
	Targets []struct{ Expr, LegendFormat string }
	Panels  []panel

	FieldConfig struct{ Defaults struct{ Unit string } }
}

func panels() (map[string]panel, error) {
	text, err := os.ReadFile("dashboard.json")
	if err != nil {
		return nil, err
	}
	var board panel
	if err := json.Unmarshal(text, &board); err != nil {
		return nil, err
	}
	found := map[string]panel{}
	for _, row := range append(board.Panels, board) {
		for _, p := range append(row.Panels, row) {
			found[p.Title] = p
		}
	}
	return found, nil
}

// series is an answer to a query over a time.
type series struct {
	Metric map[string]string
	Values [][2]any // s since 1970, and a text
}

// ask fills in the variables of the dashboard.
func (p panel) ask(from prometheus, expr string, began, ended time.Time) ([]series, error) {
	expr = strings.NewReplacer("$job", "keyval", "$instance", ".*", "$__rate_interval", "10s").Replace(expr)
	var answer struct{ Result []series }
	err := from.ask("/api/v1/query_range", url.Values{
		"query": {expr}, "start": {fmt.Sprint(began.Unix())}, "end": {fmt.Sprint(ended.Unix())}, "step": {"2"},
	}, &answer)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.Title, err)
	}
	return answer.Result, nil
}

var label = regexp.MustCompile(`{{\s*(\w+)\s*}}`)

func (s series) legend(format string) string {
	return label.ReplaceAllStringFunc(format, func(name string) string { return s.Metric[label.FindStringSubmatch(name)[1]] })
}

// zero reports whether there is nothing to see of it.
func (s series) zero() bool {
	return !slices.ContainsFunc(s.Values, func(v [2]any) bool { return v[1] != "0" && v[1] != "NaN" })
}

// points are in s since zero. Between what was missing there is no line.
func (s series) points(zero time.Time) (runs []plotter.XYs) {
	last := math.Inf(-1)
	for _, v := range s.Values {
		at, _ := v[0].(float64)
		text, _ := v[1].(string)
		y, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(y) || math.IsInf(y, 0) {
			continue
		}
		if at-last > 3 {
			runs = append(runs, nil)
		}
		last = at
		runs[len(runs)-1] = append(runs[len(runs)-1], plotter.XY{X: at - float64(zero.UnixMilli())/1000, Y: y})
	}
	return runs
}

// plot draws one panel; names turn addresses of metrics into names of nodes, zero is the kill, again the new start.
func (p panel) plot(from prometheus, names *strings.Replacer, began, ended, zero, again time.Time) (*plot.Plot, error) {
	drawn := plot.New()
	drawn.Title.Text = p.Title
	drawn.X.Label.Text, drawn.X.Label.TextStyle.Font.Size = "s after the kill", vg.Points(8)
	drawn.X.Min, drawn.X.Max, drawn.Y.Min = began.Sub(zero).Seconds(), ended.Sub(zero).Seconds(), 0
	drawn.Legend.Top, drawn.Legend.Left, drawn.Legend.TextStyle.Font.Size = true, true, vg.Points(7)
	drawn.Title.TextStyle.Font.Size = vg.Points(11)
	if unit := p.FieldConfig.Defaults.Unit; unit == "s" {
		drawn.Y.Label.Text = "s"
	}
	colour := 0
	for _, t := range p.Targets {
		all, err := p.ask(from, t.Expr, began, ended)
		if err != nil {
			return nil, err
		}
		slices.SortFunc(all, func(a, b series) int { return strings.Compare(a.legend(t.LegendFormat), b.legend(t.LegendFormat)) })
		for _, s := range all {
			for i, run := range s.points(zero) {
				line, err := plotter.NewLine(run)
				if err != nil {
					return nil, err
				}
				line.Color, line.Width = plotutil.Color(colour), vg.Points(1)
				drawn.Add(line)
				if name := names.Replace(s.legend(t.LegendFormat)); i == 0 && name != "" && !s.zero() {
					drawn.Legend.Add(name, line)
				}
			}
			colour++
		}
	}
	drawn.Y.Max = math.Max(drawn.Y.Max*1.3, 1e-6) // room for the legend
	for _, at := range []float64{0, again.Sub(zero).Seconds()} {
		line, err := plotter.NewLine(plotter.XYs{{X: at, Y: drawn.Y.Min}, {X: at, Y: drawn.Y.Max}})
		if err != nil {
			return nil, err
		}
		line.Color, line.Dashes = color.Gray{128}, []vg.Length{vg.Points(3), vg.Points(3)}
		drawn.Add(line)
	}
	return drawn, nil
}

// draw writes a picture of the panels.
func draw(from prometheus, file string, names *strings.Replacer, began, ended, zero, again time.Time) error {
	found, err := panels()
	if err != nil {
		return err
	}
	rows := make([][]*plot.Plot, (len(shown)+columns-1)/columns)
	for i, title := range shown {
		p, is := found[title]
		if !is {
			return fmt.Errorf("the dashboard has no panel %q", title)
		}
		drawn, err := p.plot(from, names, began, ended, zero, again)
		if err != nil {
			return err
		}
		rows[i/columns] = append(rows[i/columns], drawn)
	}
	canvas := vgimg.NewWith(vgimg.UseWH(vg.Length(columns)*4.2*vg.Inch, vg.Length(len(rows))*2.2*vg.Inch), vgimg.UseDPI(96))
	tiles := plotdraw.Tiles{Rows: len(rows), Cols: columns, PadX: vg.Points(14), PadY: vg.Points(10), PadTop: vg.Points(6), PadBottom: vg.Points(6), PadLeft: vg.Points(6), PadRight: vg.Points(10)}
	for y, line := range plot.Align(rows, tiles, plotdraw.New(canvas)) {
		for x, at := range line {
			rows[y][x].Draw(at)
		}
	}
	small := image.NewPaletted(canvas.Image().Bounds(), palette.WebSafe)
	imagedraw.Draw(small, small.Bounds(), canvas.Image(), image.Point{}, imagedraw.Src)
	to, err := os.Create(file)
	if err != nil {
		return err
	}
	err = (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(to, small)
	return errors.Join(err, to.Close())
}
