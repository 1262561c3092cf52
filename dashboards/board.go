package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// The uids are part of the dashboards' addresses, which alerts and people keep.
const (
	uidRuns     = "edges-runs"
	uidAction   = "edges-action"
	uidExporter = "edges-exporter"
)

const columns = 24

// board collects the panels of a dashboard from top to bottom.
type board struct {
	uid, title, about string
	variables         []dashboard.VariableModel
	// alerts selects those that are marked in the graphs.
	alerts        string
	panels        []dashboard.PanelOrRowPanel
	x, y, tallest uint32
	nextID        uint32
	errs          []error
}

// section starts a row with a heading.
func (b *board) section(title string) {
	b.fill()
	b.nextID++
	b.panels = append(b.panels, dashboard.PanelOrRowPanel{RowPanel: &dashboard.RowPanel{
		Type: "row", Title: &title, Id: b.nextID, Panels: []dashboard.Panel{},
		GridPos: &dashboard.GridPos{X: 0, Y: b.y, W: columns, H: 1},
	}})
	b.y++
}

// add puts a panel to the right of the last one, or below when the line is full.
func (b *board) add(p placed, err error) {
	if err != nil {
		b.errs = append(b.errs, err)
		return
	}
	b.nextID++
	id := b.nextID
	p.panel.Id = &id
	p.panel.GridPos = &dashboard.GridPos{X: b.x, Y: b.y, W: p.wide, H: p.high}
	b.panels = append(b.panels, dashboard.PanelOrRowPanel{Panel: &p.panel})
	b.tallest = max(b.tallest, p.high)
	b.x += p.wide
	if b.x == columns {
		b.fill()
	}
}

// fill goes on with a new line.
func (b *board) fill() {
	if b.x != 0 && b.x != columns {
		b.errs = append(b.errs, fmt.Errorf("%s: the panels above line %d take %d of %d columns", b.uid, b.y, b.x, columns))
	}
	b.x, b.y, b.tallest = 0, b.y+b.tallest, 0
}

// annotation is a query of events with the fields that say how Prometheus'
// samples are named, which the builders do not know.
type annotation struct {
	dashboard.AnnotationQuery
	Step        string `json:"step,omitempty"`
	TitleFormat string `json:"titleFormat,omitempty"`
	TextFormat  string `json:"textFormat,omitempty"`
	TagKeys     string `json:"tagKeys,omitempty"`
}

// document is a dashboard as it stands in the file.
type document struct {
	dashboard.Dashboard
	Annotations struct {
		List []annotation `json:"list"`
	} `json:"annotations"`
}

// json renders the dashboard as its file is written.
func (b *board) json() ([]byte, error) {
	b.fill()
	if err := errors.Join(b.errs...); err != nil {
		return nil, err
	}
	d, err := dashboard.NewDashboardBuilder(b.title).
		Uid(b.uid).Description(b.about).Tags([]string{"edges"}).
		Readonly().Timezone("browser").Tooltip(dashboard.DashboardCursorSyncCrosshair).
		Time("now-3h", "now").Refresh("1m").WeekStart("monday").
		Build()
	if err != nil {
		return nil, fmt.Errorf("build dashboard %q: %w", b.title, err)
	}
	d.Panels = b.panels
	d.Links = links()
	d.Templating.List = b.variables
	doc := document{Dashboard: d}
	doc.Annotations.List = annotations(b.alerts)
	out, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write dashboard %q: %w", b.title, err)
	}
	// Readable in the file: JSON needs none of these escaped.
	for _, c := range []string{"<", ">", "&"} {
		out = bytes.ReplaceAll(out, fmt.Appendf(nil, "\\u%04x", c[0]), []byte(c))
	}
	return append(out, '\n'), nil
}

func datasource() *common.DataSourceRef {
	return &common.DataSourceRef{Type: cog.ToPtr("prometheus"), Uid: cog.ToPtr("${datasource}")}
}

// variable is a choice of values of a label.
type variable struct {
	name, label, about string
	metric, of         string
}

var (
	jobVariable       = variable{"job", "Job", "Scrape jobs that collect the exporter.", "edges_up", ""}
	instanceVariable  = variable{"instance", "Instance", "Exporters. Several that follow one workspace are not added up.", "edges_up", `job=~"$job"`}
	workspaceVariable = variable{"workspace", "Workspace", "Edges workspaces.", "edges_up", ofProcess}
	actionVariable    = variable{"action", "Action", "Actions that have had runs.", "edges_runs_created_total", ofWorkspace}
	modeVariable      = variable{"mode", "Mode", "How runs were launched: LIVE, ASYNC or by a SCHEDULE.", "edges_runs_created_total", ofWorkspace + `, action=~"$action"`}
)

// variables lists the data source and then the given ones.
func variables(vs ...variable) []dashboard.VariableModel {
	text := func(s string) dashboard.StringOrArrayOfString {
		return dashboard.StringOrArrayOfString{String: &s}
	}
	out := []dashboard.VariableModel{{
		Type: dashboard.VariableTypeDatasource, Name: "datasource", Label: cog.ToPtr("Data source"),
		Description: cog.ToPtr("The Prometheus that scrapes the exporter."),
		Query:       &dashboard.StringOrMap{String: cog.ToPtr("prometheus")},
		Hide:        cog.ToPtr(dashboard.VariableHideDontHide),
		Refresh:     cog.ToPtr(dashboard.VariableRefreshOnDashboardLoad),
		Regex:       cog.ToPtr(""), Multi: cog.ToPtr(false), IncludeAll: cog.ToPtr(false),
	}}
	for _, v := range vs {
		q := fmt.Sprintf("label_values(%s{%s}, %s)", v.metric, v.of, v.name)
		if v.of == "" {
			q = fmt.Sprintf("label_values(%s, %s)", v.metric, v.name)
		}
		out = append(out, dashboard.VariableModel{
			Type: dashboard.VariableTypeQuery, Name: v.name, Label: &v.label, Description: &v.about,
			Datasource: datasource(), Definition: &q,
			Query:      &dashboard.StringOrMap{Map: map[string]any{"qryType": 1, "query": q, "refId": "variable-" + v.name}},
			Multi:      cog.ToPtr(true),
			IncludeAll: cog.ToPtr(true),
			AllValue:   cog.ToPtr(".+"),
			Current:    &dashboard.VariableOption{Selected: cog.ToPtr(true), Text: text("All"), Value: text("$__all")},
			Options:    []dashboard.VariableOption{},
			Refresh:    cog.ToPtr(dashboard.VariableRefreshOnTimeRangeChanged),
			Sort:       cog.ToPtr(dashboard.VariableSortNaturalAsc),
			Hide:       cog.ToPtr(dashboard.VariableHideDontHide),
		})
	}
	return out
}

// objective is the share of runs that should succeed, for the panels that
// compare with it.
func objective() dashboard.VariableModel {
	choices := []struct{ text, value string }{
		{"80 %", "0.8"}, {"90 %", "0.9"}, {"95 %", "0.95"}, {"98 %", "0.98"}, {"99 %", "0.99"}, {"99.5 %", "0.995"}, {"99.9 %", "0.999"},
	}
	str := func(s string) dashboard.StringOrArrayOfString { return dashboard.StringOrArrayOfString{String: &s} }
	v := dashboard.VariableModel{
		Type: dashboard.VariableTypeCustom, Name: "objective", Label: cog.ToPtr("Objective"),
		Description: cog.ToPtr("The share of runs that should succeed. Only drawn here; the alerts have their own."),
		Multi:       cog.ToPtr(false), IncludeAll: cog.ToPtr(false), Hide: cog.ToPtr(dashboard.VariableHideDontHide),
	}
	var named []string
	for _, c := range choices {
		named = append(named, c.text+" : "+c.value)
		o := dashboard.VariableOption{Selected: cog.ToPtr(c.value == defaultObjective), Text: str(c.text), Value: str(c.value)}
		if *o.Selected {
			v.Current = &o
		}
		v.Options = append(v.Options, o)
	}
	v.Query = &dashboard.StringOrMap{String: cog.ToPtr(strings.Join(named, ", "))}
	return v
}

// defaultObjective is the objective that the alerts ship with.
const defaultObjective = "0.9"

// links lead to the other dashboards, with the time and the choices taken along.
func links() []dashboard.DashboardLink {
	return []dashboard.DashboardLink{{
		Title: "Edges dashboards", Type: dashboard.DashboardLinkTypeDashboards, Tags: []string{"edges"},
		Tooltip: "The other Edges dashboards, for the same time and choices",
		Icon:    "dashboard", IncludeVars: true, KeepTime: true,
	}}
}

// toDashboard opens another dashboard from a panel, with more of the address if given.
func toDashboard(title, uid, more string) dashboard.DashboardLink {
	url := "/d/" + uid + "?${__url_time_range}&${datasource:queryparam}&${job:queryparam}&${instance:queryparam}&${workspace:queryparam}" + more
	return dashboard.DashboardLink{Title: title, Type: dashboard.DashboardLinkTypeLink, Url: &url, Tags: []string{}}
}

// actionCell makes the cells of the column Action links to that action's dashboard.
func actionCell() override {
	link := toDashboard("Look at ${__value.text}", uidAction, "&${mode:queryparam}&var-action=${__value.raw}")
	return byName("Action", property("links", []map[string]any{{"title": link.Title, "url": link.Url}}))
}

// annotations mark in every graph what happened around the runs.
func annotations(alerts string) []annotation {
	expr := func(s string) *string { return &s }
	return []annotation{
		{
			AnnotationQuery: dashboard.AnnotationQuery{
				Name: "Alerts firing", Datasource: datasource(), Enable: true, IconColor: bad,
				Expr: expr(alerts),
			},
			Step: "1m", TitleFormat: "{{alertname}}", TextFormat: "{{severity}} {{workspace}} {{action}}", TagKeys: "alertname,severity,workspace,action",
		},
		{
			AnnotationQuery: dashboard.AnnotationQuery{
				Name: "Exporter restarts", Datasource: datasource(), Enable: true, IconColor: neutral,
				Expr: expr("changes(" + where("process_start_time_seconds", ofProcess) + window + ") > 0"),
			},
			Step: "1m", TitleFormat: "Exporter restarted", TextFormat: "{{job}} {{instance}}", TagKeys: "instance",
		},
	}
}
