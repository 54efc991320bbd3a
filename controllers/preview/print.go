package preview

import (
	"fmt"
	"time"
)

// Rows are the preview as lines for people to read, with columns that are separated by tabs.
func (p Preview) Rows() []string {
	rows := []string{fmt.Sprintf("%s in namespace %s", p.Object, p.Namespace)}
	for i, step := range p.Steps {
		rows = append(rows, fmt.Sprintf("  %d. %s\tbecause %s", i+1, step.What, step.Why))
	}
	if len(p.Steps) == 0 {
		rows = append(rows, "  nothing to do")
	}
	for _, condition := range p.Conditions {
		rows = append(rows, "  "+condition)
	}
	if p.Next > 0 {
		rows = append(rows, fmt.Sprintf("  It reconciles again after %v, or when something happens.", p.Next.Round(time.Second)))
	}
	return rows
}
