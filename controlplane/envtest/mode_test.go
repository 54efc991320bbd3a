package envtest

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	for name, c := range map[string]struct {
		reason, text string
		want         Mode
		err          string
	}{
		"empty":          {reason: "plain envtest is the default", text: ""},
		"blank":          {reason: "a CI job may set an empty variable with blanks", text: "  "},
		"controllers":    {reason: "one word is enough", text: "controllers", want: Mode{Controllers: true}},
		"nodes":          {reason: "words are separated by commas", text: "controllers,nodes=3", want: Mode{Controllers: true, Nodes: 3}},
		"blanks":         {reason: "YAML folds lines into blanks", text: "controllers, nodes=3 ", want: Mode{Controllers: true, Nodes: 3}},
		"unknown":        {reason: "a typing error must not mean plain envtest", text: "controller", err: `"controller" is unknown`},
		"upper case":     {reason: "words are matched exactly", text: "Controllers", err: `"Controllers" is unknown`},
		"trailing comma": {reason: "an empty word is none", text: "controllers,", err: `"" is unknown`},
		"true":           {reason: "it is not a switch", text: "true", err: `"true" is unknown`},
		"a value":        {reason: "controllers has none", text: "controllers=all", err: `"controllers=all" is unknown`},
		"no number":      {reason: "nodes needs one", text: "controllers,nodes", err: `"nodes" is unknown`},
		"not a number":   {reason: "nodes needs one", text: "controllers,nodes=three", err: `"three" is not a number`},
		"zero":           {reason: "no nodes is said by leaving the word out", text: "controllers,nodes=0", err: "between 1 and 1000"},
		"too many":       {reason: "more do not fit", text: "controllers,nodes=1001", err: "between 1 and 1000"},
		"overflow":       {reason: "more do not fit", text: "controllers,nodes=99999999999999999999", err: "between 1 and 1000"},
		"twice":          {reason: "which of them counts?", text: "controllers,nodes=1,nodes=2", err: `"nodes" is there twice`},
		"alone":          {reason: "nobody would make Pods for them", text: "nodes=3", err: "nodes need controllers"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Parse(c.text)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("%s: -want +got:\n%s", c.reason, diff)
			}
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err) || !strings.Contains(err.Error(), Variable)) {
				t.Errorf("%s: got error %v, want %q", c.reason, err, c.err)
			}
		})
	}
}
