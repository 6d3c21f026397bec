package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"istio.io/istio/pkg/config/analysis/analyzers"
	"istio.io/istio/pkg/config/analysis/local"
	"istio.io/istio/pkg/config/resource"
)

type finding struct {
	Level   string `json:"level"`
	Code    string `json:"code"`
	Object  string `json:"object"`
	File    string `json:"file"`
	Message string `json:"message"`
}

type analysis struct {
	Analyzers int       `json:"analyzers"`
	Skipped   []string  `json:"skipped"`
	Findings  []finding `json:"findings"`
}

// analyze prints what the analyzers say. Files that cannot be read are an error, never skipped.
func analyze(mesh string, files []string) error {
	analyzer := local.NewIstiodAnalyzer(analyzers.AllCombined(), resource.Namespace("trading"), resource.Namespace("istio-system"), nil)
	if err := analyzer.AddFileKubeMeshConfig(mesh); err != nil {
		return err
	}
	readers := make([]local.ReaderSource, 0, len(files))
	for _, name := range files {
		file, err := os.Open(name)
		if err != nil {
			return err
		}
		defer file.Close()
		readers = append(readers, local.ReaderSource{Name: filepath.Base(name), Reader: file})
	}
	// First: whatever comes first decides of which kinds there may be objects, and this call takes Pods and Namespaces too.
	if err := analyzer.AddTestReaderKubeSource(readers); err != nil {
		return err
	}
	if err := analyzer.AddDefaultResources(); err != nil {
		return err
	}
	stop := make(chan struct{})
	defer close(stop)
	result, err := analyzer.Analyze(stop)
	if err != nil {
		return err
	}
	found := analysis{Analyzers: len(result.ExecutedAnalyzers), Skipped: result.SkippedAnalyzers, Findings: []finding{}}
	for _, message := range result.Messages {
		item := finding{Level: message.Type.Level().String(), Code: message.Type.Code(), Message: fmt.Sprintf(message.Type.Template(), message.Parameters...)}
		if message.Resource != nil {
			item.Object = message.Resource.Metadata.FullName.String()
			item.File = message.Resource.Origin.Reference().String()
		}
		found.Findings = append(found.Findings, item)
	}
	return json.NewEncoder(os.Stdout).Encode(found)
}
