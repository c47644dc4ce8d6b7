package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestPatterns holds regular expressions to being compiled when they are first
// used: git starts the program three times in a push, as its hooks, and what
// packages make at their start cost more there than all that hooks do. That each
// of them can be compiled is shown here instead.
func TestPatterns(t *testing.T) {
	seen := 0
	err := filepath.WalkDir("../..", func(path string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != "../.." || d.Name() == "testdata" || d.Name() == "bench"):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		files := token.NewFileSet()
		f, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, decl := range f.Decls {
			vars, ok := decl.(*ast.GenDecl)
			if !ok {
				continue
			}
			ast.Inspect(vars, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if _, inside := n.(*ast.FuncLit); inside || !ok {
					return !inside
				}
				switch called := call.Fun.(type) {
				case *ast.SelectorExpr:
					if p, ok := called.X.(*ast.Ident); ok && p.Name == "regexp" {
						t.Errorf("%s: regexp.%s at package level is paid for by each hook of a push: use pattern", files.Position(n.Pos()), called.Sel.Name)
					}
				case *ast.Ident:
					if called.Name != "pattern" {
						break
					}
					seen++
					text, err := strconv.Unquote(call.Args[0].(*ast.BasicLit).Value)
					if err != nil {
						t.Fatal(err)
					}
					if _, err := regexp.Compile(text); err != nil {
						t.Errorf("%s: %v", files.Position(n.Pos()), err)
					}
				}
				return true
			})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 50 {
		t.Errorf("%d patterns were found, there are more", seen)
	}
}
