package command

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestWithoutSecrets(t *testing.T) {
	for _, test := range []struct{ name, row, want string }{
		{"no callback", `{ "a" : [1, 2.50, "x\u00e9"], "b" : null }`, `{"a":[1,2.50,"x\u00e9"],"b":null}`},
		{"headers", `{"callback":{"url":"https://a/b","headers":{"A":"s","B":1,"C":null,"D":true}}}`, `{"callback":{"url":"https://a/b","headers":{"A":"[redacted]","B":"[redacted]","C":null,"D":"[redacted]"}}}`},
		{"headers in other letters", `{"Callback":{"Headers":{"A":"s"}}}`, `{"Callback":{"Headers":{"A":"[redacted]"}}}`},
		{"escaped names", `{"c\u0061llback":{"h\u0065aders":{"A":"s"}}}`, `{"callback":{"headers":{"A":"[redacted]"}}}`},
		{"a list of headers", `{"callback":{"headers":[{"name":"A","value":"s"},"s"]}}`, `{"callback":{"headers":[{"name":"[redacted]","value":"[redacted]"},"[redacted]"]}}`},
		{"a list of callbacks", `{"callback":[{"headers":{"A":"s"}},{"deep":{"headers":"s","x":[1]}}]}`, `{"callback":[{"headers":{"A":"[redacted]"}},{"deep":{"headers":"[redacted]","x":["[redacted]"]}}]}`},
		{"a callback that is a text", `{"callback":"{\"headers\":{\"A\":\"s\"}}"}`, `{"callback":"[redacted]"}`},
		{"no callback at all", `{"callback":null,"headers":{"A":"b"}}`, `{"callback":null,"headers":{"A":"b"}}`},
		{"twice", `{"callback":{},"callback":{"headers":{"A":"s"}}}`, `{"callback":{},"callback":{"headers":{"A":"[redacted]"}}}`},
		{"no object", `[{"callback":1}]`, `[{"callback":1}]`},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := withoutSecrets(json.RawMessage(test.row))
			if err != nil || string(got) != test.want {
				t.Errorf("%s, %v, want %s", got, err, test.want)
			}
		})
	}
	if _, err := withoutSecrets(json.RawMessage(`{"callback":{`)); err == nil {
		t.Error("half a row is taken")
	}
	deep := `{"callback":` + strings.Repeat(`{"a":`, 20_000) + "1" + strings.Repeat("}", 20_001)
	if got, err := withoutSecrets(json.RawMessage(deep)); err == nil && !json.Valid(got) {
		t.Error("a deep row becomes invalid")
	}
}

// Whatever a row is, what becomes of it is JSON, and has none of the values of
// its callback's headers.
func FuzzWithoutSecrets(f *testing.F) {
	f.Add(`{"uid":"a","callback":{"url":"u","headers":{"A":"secret"}}}`)
	f.Add(`{"callback":[1,{"headers":[["secret"]]}]}`)
	f.Add(`[{}]`)
	f.Fuzz(func(t *testing.T, row string) {
		got, err := withoutSecrets(json.RawMessage(row))
		if err != nil {
			return
		}
		if !json.Valid(got) {
			t.Fatalf("not JSON: %s", got)
		}
		var shown struct {
			Callback struct {
				Headers map[string]string `json:"headers"`
			} `json:"callback"`
		}
		if json.Unmarshal(got, &shown) != nil {
			return
		}
		for name, value := range shown.Callback.Headers {
			if value != redacted && value != "" {
				t.Errorf("%s is shown as %q", name, value)
			}
		}
	})
}
