//go:build !linux

package main

import "github.com/spf13/cobra"

// hostCommands: nodes are Linux. What needs no node works elsewhere too.
func hostCommands() []*cobra.Command { return nil }
