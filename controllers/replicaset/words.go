package replicaset

import (
	"fmt"
	"strings"
)

// What implements Action.
func (a Adopt) What() string { return "adopt Pod " + a.Pod.Name }

// What implements Action.
func (a Release) What() string { return "release Pod " + a.Pod.Name }

// What implements Action.
func (a Create) What() string { return fmt.Sprintf("create %d Pods", a.Count) }

// What implements Action.
func (a Delete) What() string {
	names := make([]string, 0, len(a.Pods))
	for _, pod := range a.Pods {
		names = append(names, pod.Name)
	}
	return fmt.Sprintf("delete %d Pods: %s", len(a.Pods), strings.Join(names, ", "))
}

// What implements Action.
func (a Refuse) What() string { return "do nothing" }
