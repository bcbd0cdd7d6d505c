// Package measure is what the benchmark programs share: series of times, a
// report with a table of bars at its end, and figures that the kernel keeps in
// text files. Only programs below functional import it.
package measure
