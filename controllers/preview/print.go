package preview

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// Print prints the preview for people to read.
func (p Preview) Print(out io.Writer) error {
	fmt.Fprintf(out, "%s in namespace %s\n", p.Object, p.Namespace)
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	for i, step := range p.Steps {
		fmt.Fprintf(w, "  %d. %s\tbecause %s\n", i+1, step.What, step.Why)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(p.Steps) == 0 {
		fmt.Fprintln(out, "  nothing to do")
	}
	for _, condition := range p.Conditions {
		fmt.Fprintf(out, "  %s\n", condition)
	}
	if p.Next > 0 {
		fmt.Fprintf(out, "  It looks again after %v, or when something happens.\n", p.Next.Round(time.Second))
	}
	return nil
}
