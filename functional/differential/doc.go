// Package differential asks a real OpenStack and the embedded cloud the same
// questions and compares what they answer.
//
// testdata holds lists of calls, one file for each noun (see parse.go for their
// form). Answers are made comparable (ids, times, hosts,
// links, what is quoted of a schema) and then must be equal in status, headers that clients
// look at, and body. A difference that is meant stands with its reason in
// testdata/accepted.txt; one that is there no more fails too.
package differential
