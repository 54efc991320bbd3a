package results

import (
	"encoding/xml"
	"fmt"
	"os"

	"flyball.dev/test/conformance/suite"
)

type junitSuite struct {
	XMLName  xml.Name    `xml:"testsuite"`
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Skipped  int         `xml:"skipped,attr"`
	Time     float64     `xml:"time,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Name    string        `xml:"name,attr"`
	Class   string        `xml:"classname,attr"`
	Time    float64       `xml:"time,attr"`
	Failure *junitMessage `xml:"failure"`
	Skipped *junitMessage `xml:"skipped"`
}

type junitMessage struct {
	Message string `xml:"message,attr"`
}

// WriteJUnit writes the outcomes in the format that continuous integration reads.
func WriteJUnit(path string, outcomes []suite.Outcome) error {
	s := junitSuite{Name: "conformance", Tests: len(outcomes)}
	for _, o := range outcomes {
		c := junitCase{Name: o.Name, Class: "sig-" + suite.SIG(o.Name), Time: o.Seconds}
		switch o.State {
		case suite.Failed:
			c.Failure = &junitMessage{o.Message}
			s.Failures++
		case suite.Skipped:
			c.Skipped = &junitMessage{o.Message}
			s.Skipped++
		case suite.Passed:
		}
		s.Time += o.Seconds
		s.Cases = append(s.Cases, c)
	}
	body, err := xml.MarshalIndent(s, "", "  ")
	if err != nil {
		return fmt.Errorf("writing the JUnit file: %w", err)
	}
	if err := os.WriteFile(path, append([]byte(xml.Header), body...), 0o644); err != nil {
		return fmt.Errorf("writing the JUnit file: %w", err)
	}
	return nil
}
