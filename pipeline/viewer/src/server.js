// Questions to the server that gave out this page.

export async function ask(name, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== '' && value !== undefined);
  let response;
  try {
    response = await fetch(`${name}?${new URLSearchParams(given)}`);
  } catch {
    throw new Error('seamfree view has ended; start it again to go on.');
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}
