// Package sparse makes, grows and copies files whose holes take no space.
package sparse
