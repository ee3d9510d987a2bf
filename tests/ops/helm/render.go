// Renders a Helm chart's templates as Helm does: Go's text/template, the functions of sprig and those that
// Helm adds, with the library that it writes YAML with.
//
//	render CHART < CONTEXT.json > DOCUMENTS.json
//
// CONTEXT is what templates see as ".": Values (merged by the caller), Release, Chart. DOCUMENTS is an object of each
// template's path to its text. What a template refuses is printed to stderr, and the exit code is 1.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/Masterminds/sprig"
	"sigs.k8s.io/yaml"
)

// files is what templates see as ".Files": the chart's folder.
type files string

func (folder files) Get(name string) (string, error) {
	content, err := os.ReadFile(filepath.Join(string(folder), name))
	return string(content), err
}

func toYaml(value interface{}) (string, error) {
	text, err := yaml.Marshal(value)
	return strings.TrimSuffix(string(text), "\n"), err
}

func required(why string, value interface{}) (interface{}, error) {
	if text, isText := value.(string); value == nil || isText && text == "" {
		return nil, fmt.Errorf("%s", why)
	}
	return value, nil
}

func refuse(why string) (string, error) {
	return "", fmt.Errorf("%s", why)
}

func render(chart string, context map[string]interface{}) (map[string]string, error) {
	context["Files"] = files(chart)
	all := template.New("chart").Option("missingkey=zero").Funcs(sprig.TxtFuncMap())
	include := func(name string, data interface{}) (string, error) {
		var text bytes.Buffer
		err := all.ExecuteTemplate(&text, name, data)
		return text.String(), err
	}
	all.Funcs(template.FuncMap{"include": include, "required": required, "fail": refuse, "toYaml": toYaml})
	paths, err := filepath.Glob(filepath.Join(chart, "templates", "*"))
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		if _, err := all.New(filepath.Base(path)).Parse(string(text)); err != nil {
			return nil, err
		}
	}
	documents := map[string]string{}
	for _, path := range paths {
		name := filepath.Base(path)
		// Helm takes what begins with an underscore for definitions alone.
		if strings.HasPrefix(name, "_") {
			continue
		}
		if documents[name], err = include(name, context); err != nil {
			return nil, err
		}
	}
	return documents, nil
}

func main() {
	var context map[string]interface{}
	err := json.NewDecoder(os.Stdin).Decode(&context)
	if err == nil {
		var documents map[string]string
		if documents, err = render(os.Args[1], context); err == nil {
			err = json.NewEncoder(os.Stdout).Encode(documents)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
