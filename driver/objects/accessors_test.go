package objects

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestViewsNameRealFields reads the source of the views: every field that a
// view reads or sets must be in the table of its object, with a fitting type.
func TestViewsNameRealFields(t *testing.T) {
	fset := token.NewFileSet()
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(fset, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok || fn.Recv == nil {
				continue
			}
			view, ok := fn.Recv.List[0].Type.(*ast.Ident)
			if !ok {
				continue
			}
			schema, ok := Lookup(view.Name)
			if !ok {
				continue
			}
			ast.Inspect(fn.Body, func(n ast.Node) bool {
				method, field, ok := fieldCall(n)
				if !ok {
					return true
				}
				checked++
				f, known := schema.Field(field)
				if !known || !accepts(method, f) {
					t.Errorf("%s: %s has no field %s for %s (%+v)", fset.Position(n.Pos()), view.Name, field, method, f)
				}
				return true
			})
		}
	}
	if checked < 100 {
		t.Errorf("only %d accesses found", checked)
	}
}

// fieldCall recognises x.Method("field", …).
func fieldCall(n ast.Node) (method, field string, ok bool) {
	call, ok := n.(*ast.CallExpr)
	if !ok || len(call.Args) == 0 {
		return "", "", false
	}
	sel, ok := call.Fun.(*ast.SelectorExpr)
	lit, isLit := call.Args[0].(*ast.BasicLit)
	if !ok || !isLit || lit.Kind != token.STRING {
		return "", "", false
	}
	switch sel.Sel.Name {
	case "String", "Int", "Float", "Bool", "Time", "Strings", "StringList", "Object", "Objects", "Set", "Get", "IsNull":
		field, err := strconv.Unquote(lit.Value)
		return sel.Sel.Name, field, err == nil
	}
	return "", "", false
}

// accepts says whether a reader of Object suits the declared type.
func accepts(method string, f Field) bool {
	switch method {
	case "Int":
		return f.Type == "i"
	case "Float":
		return f.Type == "f"
	case "Bool":
		return f.Type == "b"
	case "Time":
		return f.Type == "dt"
	case "Strings":
		return strings.HasPrefix(f.Type, "M[s")
	case "StringList":
		return f.Type == "L[s]" || f.Type == "set[s]"
	case "Object", "Objects":
		return f.Object() != ""
	case "String":
		return f.Type == "s" || f.Type == "uuid" || f.Type == "nwjson" || strings.HasPrefix(f.Type, "e") || strings.HasPrefix(f.Type, "ip")
	}
	return true
}
