package process

import "path/filepath"

// NamespacePaths returns where CreateNamespaces pins the namespaces of dir,
// whether they exist or not.
func NamespacePaths(dir string) (userPath, netPath string) {
	return filepath.Join(dir, userPin), filepath.Join(dir, netPin)
}
