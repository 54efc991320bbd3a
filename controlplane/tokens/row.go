package tokens

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"
)

// Heading names the columns of Row, separated by tabs.
const Heading = "ID\tEXPIRES IN\tDESCRIPTION"

// Row is the token as a line of a table, without its secret.
func (t Token) Row(now time.Time) string {
	expires := "never"
	if !t.Expires.IsZero() {
		expires = duration.HumanDuration(t.Expires.Sub(now))
	}
	return fmt.Sprintf("%s\t%s\t%s", t.ID, expires, t.Description)
}
