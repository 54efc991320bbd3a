package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestReportClaims(t *testing.T) {
	burst := func(d time.Duration) *figures {
		return &figures{side: "ours", burst: 2 * time.Second, claims: &claims{burst: d}}
	}
	for name, tc := range map[string]struct {
		reason string
		f      *figures
		want   string
	}{
		"Claims": {"the ratio is to Pods without claims of the same side", burst(3 * time.Second), "ours: the same, to the burst without ratio 1.50"},
		"None":   {"a side without a default StorageClass has no such figures", &figures{side: "upstream"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			report(&out, []*figures{tc.f})
			text := strings.Join(strings.Fields(out.String()), " ")
			if !strings.Contains(text, tc.want) || tc.want == "" && strings.Contains(text, "claim") {
				t.Errorf("%s\nwant %q in\n%s", tc.reason, tc.want, &out)
			}
		})
	}
}
