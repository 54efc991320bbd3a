package join

import (
	"strings"
	"testing"
)

func TestParseToken(t *testing.T) {
	hash := strings.Repeat("0f", 32)
	for name, tc := range map[string]struct {
		reason, token, fails string
		want                 Token
	}{
		"Whole":      {reason: "as it is printed", token: "abcdef.0123456789abcdef." + hash, want: Token{"abcdef", "0123456789abcdef", hash}},
		"UpperCase":  {reason: "hexadecimal digits have no case", token: "abcdef.0123456789abcdef." + strings.ToUpper(hash), want: Token{"abcdef", "0123456789abcdef", hash}},
		"NoHash":     {reason: "a bare bootstrap token trusts any server", token: "abcdef.0123456789abcdef", fails: "lacks the hash"},
		"ShortHash":  {reason: "cut off while copying", token: "abcdef.0123456789abcdef." + hash[1:], fails: "63 characters"},
		"NotHex":     {reason: "a typing error", token: "abcdef.0123456789abcdef." + hash[1:] + "g", fails: "hexadecimal"},
		"BadSecret":  {reason: "too short", token: "abcdef.0123." + hash, fails: "malformed, it has 6.4.64 characters"},
		"BadID":      {reason: "capitals are not in IDs", token: "ABCDEF.0123456789abcdef." + hash, fails: "malformed"},
		"Empty":      {reason: "a variable that was not set", token: "", fails: "malformed"},
		"Whitespace": {reason: "a line break came along", token: " abcdef.0123456789abcdef." + hash, fails: "white space"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseToken(tc.token)
			if tc.fails == "" {
				if err != nil || got != tc.want {
					t.Errorf("%s: got %+v, %v", tc.reason, got, err)
				}
				if !strings.EqualFold(got.String(), tc.token) {
					t.Error("it does not print as it was read")
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), "--token") || !strings.Contains(err.Error(), tc.fails) || !strings.Contains(err.Error(), "flyball token create") {
				t.Errorf("%s: error is %v, want one that says %q and what to do", tc.reason, err, tc.fails)
			}
			if err != nil && strings.Contains(err.Error(), "0123456789abcdef") {
				t.Error("the error repeats the secret")
			}
		})
	}
}
