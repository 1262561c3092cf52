package main

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
)

// A dashboard as Grafana reads it from the file: the tests look at what is
// shipped, not at the code that made it.
type (
	fileDashboard struct {
		UID           string      `json:"uid"`
		Title         string      `json:"title"`
		Description   string      `json:"description"`
		Tags          []string    `json:"tags"`
		Editable      *bool       `json:"editable"`
		Refresh       string      `json:"refresh"`
		SchemaVersion int         `json:"schemaVersion"`
		Panels        []filePanel `json:"panels"`
		Time          struct {
			From string `json:"from"`
			To   string `json:"to"`
		} `json:"time"`
		Templating struct {
			List []fileVariable `json:"list"`
		} `json:"templating"`
		Annotations struct {
			List []fileAnnotation `json:"list"`
		} `json:"annotations"`
		Links []struct {
			Type        string   `json:"type"`
			Tags        []string `json:"tags"`
			IncludeVars bool     `json:"includeVars"`
			KeepTime    bool     `json:"keepTime"`
		} `json:"links"`
	}
	fileSource struct {
		Type string `json:"type"`
		UID  string `json:"uid"`
	}
	fileVariable struct {
		Name       string          `json:"name"`
		Label      string          `json:"label"`
		Type       string          `json:"type"`
		Datasource fileSource      `json:"datasource"`
		Query      json.RawMessage `json:"query"`
		Multi      bool            `json:"multi"`
		IncludeAll bool            `json:"includeAll"`
		AllValue   string          `json:"allValue"`
		Refresh    int             `json:"refresh"`
		Sort       int             `json:"sort"`
	}
	fileAnnotation struct {
		Name       string     `json:"name"`
		Datasource fileSource `json:"datasource"`
		Expr       string     `json:"expr"`
		Enable     bool       `json:"enable"`
	}
	filePanel struct {
		ID          int          `json:"id"`
		Type        string       `json:"type"`
		Title       string       `json:"title"`
		Description string       `json:"description"`
		Collapsed   bool         `json:"collapsed"`
		Datasource  fileSource   `json:"datasource"`
		Targets     []fileTarget `json:"targets"`
		GridPos     struct {
			X int `json:"x"`
			Y int `json:"y"`
			W int `json:"w"`
			H int `json:"h"`
		} `json:"gridPos"`
		FieldConfig struct {
			Defaults struct {
				Unit    string `json:"unit"`
				NoValue string `json:"noValue"`
			} `json:"defaults"`
			Overrides []struct {
				Matcher struct {
					ID      string `json:"id"`
					Options any    `json:"options"`
				} `json:"matcher"`
				Properties []struct {
					ID    string `json:"id"`
					Value any    `json:"value"`
				} `json:"properties"`
			} `json:"overrides"`
		} `json:"fieldConfig"`
		Options struct {
			Legend struct {
				ShowLegend bool `json:"showLegend"`
			} `json:"legend"`
		} `json:"options"`
	}
	fileTarget struct {
		RefID        string     `json:"refId"`
		Expr         string     `json:"expr"`
		Datasource   fileSource `json:"datasource"`
		LegendFormat string     `json:"legendFormat"`
		Format       string     `json:"format"`
		Instant      bool       `json:"instant"`
		Range        bool       `json:"range"`
		Interval     string     `json:"interval"`
		Exemplar     bool       `json:"exemplar"`
	}
)

// load reads a dashboard from its file.
func load(t *testing.T, uid string) (fileDashboard, []byte) {
	t.Helper()
	text, err := os.ReadFile(uid + ".json")
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, text), text
}

func decode(t *testing.T, text []byte) fileDashboard {
	t.Helper()
	var d fileDashboard
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatalf("read dashboard: %v", err)
	}
	return d
}

// uids are those of all dashboards.
func uids() []string {
	var out []string
	for _, b := range boards() {
		out = append(out, b.uid)
	}
	return out
}

// The ranges that stand for Grafana's variables when an expression is parsed:
// odd enough to be told from any range that somebody wrote.
const (
	rateWindow = "1234567ms"
	rangeSpan  = "7654321ms"
)

// promQL puts values for Grafana's variables into an expression.
func promQL(expr string, values map[string]string) string {
	return regexp.MustCompile(`\$\{?(\w+)(:\w+)?\}?`).ReplaceAllStringFunc(expr, func(ref string) string {
		name := strings.Trim(ref, "${}")
		name, _, _ = strings.Cut(name, ":")
		if v, ok := values[name]; ok {
			return v
		}
		return ref
	})
}

// forParsing has a value for every variable that an expression may hold.
func forParsing() map[string]string {
	return map[string]string{
		"__rate_interval": rateWindow, "__range": rangeSpan, "objective": "0.9",
		"job": "$job", "instance": "$instance", "workspace": "$workspace", "action": "$action", "mode": "$mode",
	}
}

func parse(expr string) (parser.Expr, error) {
	return parser.NewParser(parser.Options{}).ParseExpr(promQL(expr, forParsing()))
}

// labelValues matches the queries of variables.
var labelValues = regexp.MustCompile(`^label_values\((.+), (\w+)\)$`)

// query is the text of a variable's query.
func (v fileVariable) query() string {
	var q struct {
		Query string `json:"query"`
	}
	if json.Unmarshal(v.Query, &q) == nil && q.Query != "" {
		return q.Query
	}
	var s string
	if json.Unmarshal(v.Query, &s) == nil {
		return s
	}
	return ""
}
