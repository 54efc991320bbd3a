package v1alpha1

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

// TestDocumented keeps docs/configuration.md complete.
func TestDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range fields("", reflect.TypeFor[FlyballConfiguration]()) {
		if !strings.Contains(string(doc), "| `"+name+"` |") {
			t.Errorf("docs/configuration.md has no row for %s", name)
		}
	}
}

func fields(prefix string, typ reflect.Type) []string {
	var names []string
	for f := range typ.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "": // inlined TypeMeta
			names = append(names, fields(prefix, f.Type)...)
		case f.Type.Kind() == reflect.Struct:
			names = append(names, fields(prefix+name+".", f.Type)...)
		default:
			names = append(names, prefix+name)
		}
	}
	return names
}
