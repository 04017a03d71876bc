// Command images prints the names that upstream's specs ask for the images agnhost and pause by.
package main

import (
	"fmt"

	"k8s.io/kubernetes/test/utils/image"
)

func main() {
	fmt.Println("agnhost", image.GetE2EImage(image.Agnhost))
	fmt.Println("pause", image.GetE2EImage(image.Pause))
}
