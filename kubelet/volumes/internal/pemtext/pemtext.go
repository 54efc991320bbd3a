// Package pemtext removes from PEM everything but the blocks: headers and the text between them.
package pemtext

import "encoding/pem"

// Decode returns the bytes of all blocks.
func Decode(text []byte) [][]byte {
	var out [][]byte
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return out
		}
		out = append(out, block.Bytes)
	}
}

// Encode makes a block of each certificate. Without any the text is empty, but not nil.
func Encode(certificates [][]byte) []byte {
	out := []byte{}
	for _, der := range certificates {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return out
}
