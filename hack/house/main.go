// Command house checks who imports whom, and draws the folders into a page.
//
//	house PAGE OUT
//
// copies PAGE to OUT with the picture between its two marks drawn anew from the code. It fails, and
// writes nothing, when an import points upward, when folders import one another in a circle, or
// when PAGE names a file that does not exist.
package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"regexp"
	"slices"
	"strings"
)

const module = "flyball.dev/"

// layers are the top-level folders with code that ships, the uppermost layer first. A folder
// imports itself and folders of lower layers only.
var layers = [][]string{
	{"cmd"},
	{"simulated"},
	{"controlplane", "controllers", "kubelet", "proxy", "network", "dns", "storage", "containerd", "flyballtest"},
	{"host"},
	{"join"},
	{"nft", "apis", "config"},
	{"internal"},
}

// The marks around the picture in a page.
const begin, end = "<!-- begin of the picture: make generate -->\n", "<!-- end of the picture -->\n"

// pkg is what `go list -json` says of a package.
type pkg struct {
	ImportPath string   `json:"ImportPath"`
	Doc        string   `json:"Doc"`
	Imports    []string `json:"Imports"`
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "house:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: house PAGE OUT")
	}
	page, err := os.ReadFile(args[0])
	if err != nil {
		return fmt.Errorf("reading the page: %w", err)
	}
	packages, err := list()
	if err != nil {
		return err
	}
	head, rest, found := strings.Cut(string(page), begin)
	_, tail, ended := strings.Cut(rest, end)
	if !found || !ended {
		return fmt.Errorf("%s lacks the mark %q or %q", args[0], begin, end)
	}
	wrong := append(check(packages), missing(string(page))...)
	if err := errors.Join(wrong...); err != nil {
		return err
	}
	drawn := head + begin + draw(packages) + end + tail
	if err := os.WriteFile(args[1], []byte(drawn), 0o644); err != nil {
		return fmt.Errorf("writing the page: %w", err)
	}
	return nil
}

// missing returns an error for each file or folder that a page names, in backquotes, and that does
// not exist in a folder that does.
func missing(page string) []error {
	var wrong []error
	for _, name := range regexp.MustCompile("`([a-z0-9_]+)(/[a-z0-9_./]*)`").FindAllStringSubmatch(page, -1) {
		if _, err := os.Stat(name[1]); err != nil {
			continue // not ours: an API group, say
		}
		if _, err := os.Stat(name[1] + name[2]); err != nil {
			wrong = append(wrong, fmt.Errorf("the page names %s%s, which does not exist", name[1], name[2]))
		}
	}
	return wrong
}

// list returns the packages of the layers.
func list() ([]pkg, error) {
	args := []string{"list", "-json=ImportPath,Doc,Imports"}
	for _, layer := range layers {
		for _, folder := range layer {
			args = append(args, "./"+folder+"/...")
		}
	}
	out, err := exec.Command("go", args...).Output()
	if err != nil {
		return nil, fmt.Errorf("listing the packages: %w", err)
	}
	var packages []pkg
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		switch err := decoder.Decode(&p); {
		case errors.Is(err, io.EOF):
			return packages, nil
		case err != nil:
			return nil, fmt.Errorf("reading the list of packages: %w", err)
		}
		packages = append(packages, p)
	}
}

// check returns an error for each import that points upward, and for each circle of folders of the
// top two levels.
func check(packages []pkg) []error {
	var wrong []error
	for _, p := range packages {
		from := folder(p.ImportPath, 1)
		for _, to := range ours(p.Imports, 1) {
			if to != from && layerOf(to) <= layerOf(from) {
				wrong = append(wrong, fmt.Errorf("%s imports %s, which is not in a lower layer", p.ImportPath, to))
			}
		}
	}
	for level := 1; level <= 2; level++ {
		if circle := circleOf(graph(packages, level)); circle != nil {
			wrong = append(wrong, fmt.Errorf("folders import one another in a circle: %s", strings.Join(circle, " → ")))
		}
	}
	return wrong
}

// folder returns the first levels of the path of a package in the module.
func folder(importPath string, levels int) string {
	parts := strings.Split(strings.TrimPrefix(importPath, module), "/")
	return path.Join(parts[:min(levels, len(parts))]...)
}

// ours returns the folders of the module among imports, sorted.
func ours(imports []string, levels int) []string {
	found := map[string]bool{}
	for _, i := range imports {
		if strings.HasPrefix(i, module) {
			found[folder(i, levels)] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

func layerOf(folder string) int {
	return slices.IndexFunc(layers, func(layer []string) bool { return slices.Contains(layer, folder) })
}

// graph returns which folder imports which others.
func graph(packages []pkg, levels int) map[string][]string {
	edges := map[string][]string{}
	for _, p := range packages {
		from := folder(p.ImportPath, levels)
		for _, to := range ours(p.Imports, levels) {
			if to != from && !slices.Contains(edges[from], to) {
				edges[from] = append(edges[from], to)
			}
		}
	}
	return edges
}

// circleOf returns a circle in a graph, its first folder repeated at the end; nil if there is none.
func circleOf(edges map[string][]string) []string {
	done := map[string]bool{}
	var visit func(trail []string) []string
	visit = func(trail []string) []string {
		at := trail[len(trail)-1]
		if i := slices.Index(trail[:len(trail)-1], at); i >= 0 {
			return trail[i:]
		}
		if done[at] {
			return nil
		}
		for _, to := range slices.Sorted(slices.Values(edges[at])) {
			if circle := visit(append(slices.Clone(trail), to)); circle != nil {
				return circle
			}
		}
		done[at] = true
		return nil
	}
	for _, from := range slices.Sorted(maps.Keys(edges)) {
		if circle := visit([]string{from}); circle != nil {
			return circle
		}
	}
	return nil
}

// draw returns the folders by layer, each with the beginning of its package comment.
func draw(packages []pkg) string {
	var picture strings.Builder
	fmt.Fprintln(&picture, "```")
	sorted := slices.SortedFunc(slices.Values(packages), func(a, b pkg) int { return cmp.Compare(a.ImportPath, b.ImportPath) })
	for i, layer := range layers {
		if i > 0 {
			fmt.Fprintln(&picture, "    │")
		}
		for _, name := range layer {
			above := []string{} // the folders that the line before lies in, and its own
			for _, p := range sorted {
				if folder(p.ImportPath, 1) != name || p.Doc == "" { // tests alone have none
					continue
				}
				at := strings.TrimPrefix(p.ImportPath, module) + "/"
				above = slices.DeleteFunc(above, func(a string) bool { return !strings.HasPrefix(at, a) })
				label := strings.Repeat("  ", len(above)) + at
				if len(above) > 0 {
					label = strings.Repeat("  ", len(above)) + strings.TrimPrefix(at, above[len(above)-1])
				}
				above = append(above, at)
				fmt.Fprintf(&picture, "%-28s %s\n", label, synopsis(p))
			}
		}
	}
	fmt.Fprintln(&picture, "```")
	return picture.String()
}

// synopsis is the first sentence of a package comment without its first two words, cut where it
// becomes long.
func synopsis(p pkg) string {
	const longest = 95
	words := strings.SplitN(strings.TrimSuffix(p.Doc, "."), " ", 3)
	text := strings.TrimPrefix(words[len(words)-1], "is ")
	for _, stop := range []string{"; ", ": ", ", "} {
		if cut, _, ok := strings.Cut(text, stop); ok && len(text) > longest {
			text = cut
		}
	}
	return text
}
