// The MCP Inspector in a headless Chromium, as a person uses it: one click on "Connect", and what comes of
// it. The provider of the tests logs in whoever comes.
//
//     node inspector.mjs CHROMIUM INSPECTOR_URL SERVER TOOL SCREENSHOT
//
// Prints one JSON line: the pages it saw, and whether the server was connected and the tool listed.
import puppeteer from 'puppeteer-core';

const [chromium, inspector, server, tool, screenshot] = process.argv.slice(2);
// Looked for four times a second: a page that is not painted has no animation frames.
const WAIT = { timeout: 60_000, polling: 250 };
const seen = { pages: [], connected: false, listed: false };

// Without a sandbox because containers have none to give; the pages are our own, on loopback.
const browser = await puppeteer.launch({
    executablePath: chromium,
    headless: true,
    args: ['--no-sandbox', '--disable-gpu', '--no-proxy-server', '--disable-background-networking']
});
try {
    const page = await browser.newPage();
    await page.setViewport({ width: 1280, height: 900 });
    page.on('framenavigated', frame => {
        if (frame === page.mainFrame()) seen.pages.push(new URL(frame.url()).origin + new URL(frame.url()).pathname);
    });
    await page.goto(inspector, { waitUntil: 'domcontentloaded', ...WAIT });
    const toggle = await page.waitForSelector(`input[aria-label*="${server}"]`, WAIT);
    await toggle.evaluate(element => element.click());
    const shows = text => page.waitForFunction(wanted => document.body.innerText.includes(wanted), WAIT, text);
    await shows('MCP 2025-11-25');
    seen.connected = true;
    await page.evaluate(() => {
        const named = [...document.querySelectorAll('button, a, [role=tab], label, span')];
        named.find(element => element.innerText?.trim() === 'Tools')?.click();
    });
    await shows(tool);
    seen.listed = true;
    await page.screenshot({ path: screenshot });
} catch (error) {
    seen.error = String(error);
    const [page] = (await browser.pages()).slice(-1);
    await page?.screenshot({ path: screenshot });
    seen.text = await page?.evaluate(() => document.body.innerText.slice(0, 1500));
} finally {
    await browser.close();
}
console.log(JSON.stringify(seen));
process.exit(seen.error ? 1 : 0);
