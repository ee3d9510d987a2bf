/** Begins: the theme, the session, the page. */
import "uplot/dist/uPlot.min.css";
import "./style.css";
import { render } from "preact";
import { App } from "./app";
import { readTheme } from "./theme";

readTheme();
const root = document.getElementById("page");
if (root !== null) render(<App />, root);
