"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const page = document.getElementById("page");
const SVG = "http://www.w3.org/2000/svg";
const DRAWN = ["svg", "g", "path", "line", "text", "rect", "circle", "title"];

function make(tag, attributes = {}, ...children) {
  const node = DRAWN.includes(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return node;
}

// Text between backticks is shown as code.
const prose = (text) => String(text).split("`").map((part, i) => (i % 2 ? make("code", {}, part) : part));
