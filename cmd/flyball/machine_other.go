//go:build !linux

package main

import "github.com/spf13/cobra"

// machineCommands: nodes are Linux. What needs no node works elsewhere too.
func machineCommands() []*cobra.Command { return nil }
