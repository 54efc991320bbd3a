package rollout

import (
	"cmp"
	"fmt"
)

// Heading names the columns of Row, separated by tabs.
const Heading = "REVISION\tREPLICA-SET\tNOTE\tCHANGE-CAUSE"

// Row is the revision as a line of a table.
func (r Revision) Row() string {
	const none = "<none>"
	return fmt.Sprintf("%d\t%s\t%s\t%s", r.Number, r.ReplicaSet, cmp.Or(r.Note, none), cmp.Or(r.ChangeCause, none))
}
