import { defineConfig } from "vite";

// One script and one style sheet under fixed names: the gateway serves exactly these, each by a route of its own.
export default defineConfig({
  build: {
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    emptyOutDir: false,
    rollupOptions: {
      output: { entryFileNames: "dashboard.js", assetFileNames: "dashboard[extname]", inlineDynamicImports: true },
    },
  },
});
