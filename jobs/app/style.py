"""What the page looks like: fonts of the reader's own machine, and colours that follow light and dark."""

FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
FONT_MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")

CSS = """
:root { --lm-subdued: #5a606b; }
.dark { --lm-subdued: #a9b0bd; }
.gradio-container { max-width: 1280px !important; margin: 0 auto !important; }
footer { display: none !important; }
#lm-files a { pointer-events: none; text-decoration: none; }
.lm-message { padding: 10px 14px; border-radius: 8px; margin: 4px 0 10px; border: 1px solid; overflow-wrap: anywhere; }
.lm-error { background: #fdecea; color: #7a1512; border-color: #f1b5b0; }
.lm-note, .lm-busy { background: var(--background-fill-secondary); color: var(--body-text-color);
  border-color: var(--border-color-primary); }
.dark .lm-error { background: #3d1613; color: #ffd9d5; border-color: #7a2b25; }
.lm-html { overflow-x: clip; }
.lm-html figure { margin: 0 0 14px; }
.lm-html figcaption { font-size: 13px; color: var(--lm-subdued); margin-bottom: 4px;
  overflow-wrap: anywhere; }
.lm-picture { position: relative; width: 100%; border-radius: 6px;
  outline: 1px solid var(--border-color-primary); outline-offset: -1px; }
.lm-picture img { width: 100%; height: 100%; display: block; border-radius: 6px; margin: 0; }
.lm-picture svg { position: absolute; inset: 0; width: 100%; height: 100%; overflow: visible; }
.lm-picture text { font-family: system-ui, sans-serif; font-weight: 600; }
.lm-tiles { display: flex; flex-wrap: wrap; gap: 16px; align-items: flex-start; }
.lm-tiles > div { min-width: 0; }
.lm-tiles img { width: 100%; display: block; border-radius: 3px; margin: 0; }
.lm-tiles small { color: var(--lm-subdued); }
.lm-global { width: 160px; }
.lm-grid { display: grid; gap: 3px; }
.lm-card { border: 1px solid var(--border-color-primary); border-radius: 8px; padding: 10px 14px; margin-bottom: 10px;
  background: var(--background-fill-primary); color: var(--body-text-color); }
.lm-card header small { color: var(--lm-subdued); margin-left: 4px; }
.lm-asked { font-size: 14px; color: var(--lm-subdued); overflow-wrap: anywhere; }
.lm-text { white-space: pre-wrap; overflow-wrap: anywhere; margin-top: 4px; max-height: 480px; overflow-y: auto; }
.lm-caret { display: inline-block; width: 8px; height: 1em; vertical-align: text-bottom; margin-left: 2px;
  background: var(--color-accent); }
.lm-sent-back { font-size: 13px; color: #9a5b00; }
.dark .lm-sent-back { color: #ffc261; }
.lm-flag { display: inline-block; font-size: 12px; padding: 1px 8px; border-radius: 10px; margin: 6px 4px 0 0;
  background: #fff1d6; color: #6b4300; }
.dark .lm-flag { background: #4a3610; color: #ffe2ae; }
ul.lm-boxes { list-style: none; padding: 0; margin: 6px 0 0; font-size: 14px; }
ul.lm-boxes i { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 6px; }
.lm-row { display: grid; grid-template-columns: minmax(0, 320px) minmax(0, 1fr); gap: 16px; margin-bottom: 14px; }
@media (max-width: 640px) { .lm-row { grid-template-columns: minmax(0, 1fr); gap: 6px; } .lm-global { width: 110px; } }
"""
